"""The steps of ``rexport quantize``, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rexport._errors import UsageError

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    import onnx_ir as ir

    from rexport.calibration import BadImage
    from rexport.cli._calibration import Calibrated, Calibration
    from rexport.cli._gate import Gate
    from rexport.cli._recovery import Recovering, RecoveryDone
    from rexport.cli._tuning import Tuned, Tuning
    from rexport.preprocessing import Preprocessing
    from rexport.quantization import QuantizeResult, Target
    from rexport.tuning import Comparison, GateResult

__all__ = ["Asked", "Finished", "Quantized"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked for, step by step; ``resize``, ``mean`` and ``std`` take the place of what the file says."""

    model: Path
    output: Path
    target: Target
    precision: str
    calibration: Calibration
    recovery: Recovering
    gate: Gate
    tuning: Tuning
    resize: int | None
    mean: str | None
    std: str | None

    def quantize(self) -> Quantized:
        """Do all but writing the file; the gate may not hold.

        Raises:
            RexportError: The model, the images or the options can't be used.
        """
        from rexport.calibration import open_dataset
        from rexport.model_file import load, with_opset
        from rexport.passes import fuse
        from rexport.quantization import quantize, require_float

        here = self._runs_here()
        loaded = load(self.model)
        require_float(loaded, self.model)
        preprocessing = self._preprocessing(loaded)
        images = self.calibration.open(preprocessing)
        judged = None
        if preprocessing is not None and self.gate.eval_data is not None:
            judged = open_dataset(self.gate.eval_data, preprocessing)
        fused = with_opset(fuse(loaded).model, at_least=self.target.opset)
        calibrated = self.calibration.run(fused, images)
        recovery = self.recovery.run(
            fused, calibrated.table, images, preprocessing, target=self.target, calibrator=calibrated.calibrator
        )

        def quantize_with(keep_float: frozenset[str]) -> QuantizeResult:
            return quantize(
                fused,
                calibrated.table,
                target=self.target,
                calibrator=calibrated.calibrator,
                keep_float=keep_float,
                recovered=recovery.recovered,
            )

        gate = self.gate.mix(fused, quantize_with, judged, speeds=here)
        result = quantize_with(frozenset()) if gate is None else gate.quantized
        return Quantized(asked=self, fused=fused, calibrated=calibrated, recovery=recovery, gate=gate, result=result)

    def _preprocessing(self, model: ir.Model) -> Preprocessing | None:
        """Return how pictures become the model's input, if there are any."""
        from rexport.cli._options import model_preprocessing

        if self.calibration.data is None and self.gate.eval_data is None:
            return None
        return model_preprocessing(model, self.model, resize=self.resize, mean=self.mean, std=self.std)

    def _runs_here(self) -> bool:
        """Say whether this machine is what the target is for, so that speeds can be measured.

        Raises:
            UsageError: It is not, and a speed-up was asked for.
        """
        from rexport._cpu import this_cpu
        from rexport.quantization import target_for

        try:
            here = target_for(None, this_cpu()).name == self.target.name
        except UsageError:  # no target is for this machine
            here = False
        if self.gate.min_speedup is not None and not here:
            raise UsageError(
                f"--min-speedup measures on ONNX Runtime on this machine, which is not what --target "
                f"{self.target.name} is for; leave it out, and measure the file where it is to run."
            )
        return here


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What came of it, before a file is written."""

    asked: Asked
    fused: ir.Model
    calibrated: Calibrated
    recovery: RecoveryDone
    gate: GateResult | None
    result: QuantizeResult

    @property
    def skipped(self) -> tuple[BadImage, ...]:
        """The images that were left out."""
        return tuple(dict.fromkeys([*self.calibrated.skipped, *self.recovery.skipped]))

    def finish(self) -> Finished:
        """Write the file; measure before what was asked to be measured.

        Raises:
            GateError: It is slower than was asked for; no file is written.
        """
        import numpy as np

        from rexport.cli._tuning import tune
        from rexport.model_file import save, to_bytes
        from rexport.runtimes.onnxruntime import executed_ops

        asked = self.asked
        tuned = tune(self.result.model, asked.tuning)
        executed = executed_ops(to_bytes(tuned.model), as_on_arm=asked.target.activations.dtype is np.int8)
        speed = asked.gate.require_speed(self.fused, tuned.model)
        save(tuned.model, asked.output)
        return Finished(quantized=self, tuned=tuned, executed=executed, speed=speed)

    def document(self) -> dict[str, Any]:
        """Return it as a JSON document, without a file."""
        from rexport.cli._calibration import calibration_json
        from rexport.cli._gate import gate_json
        from rexport.cli._recovery import recovery_json

        asked = self.asked
        return {
            "schema": "rexport.quantize/1",
            "file": None,
            "bytes": None,
            "target": asked.target.name,
            "weight_range": asked.target.weights.high,
            "precision": asked.precision,
            **calibration_json(self.calibrated),
            "skipped": [{"path": str(bad.path), "why": bad.why} for bad in self.skipped],
            **recovery_json(self.recovery),
            **gate_json(self.gate),
            "layers": [
                {"name": layer.name, "op_type": layer.op_type, "precision": layer.precision, "why": layer.why}
                for layer in self.result.layers
            ],
        }

    def print(self) -> None:
        """Print what it rests on, and what the gate says."""
        import numpy as np

        from rexport.cli._calibration import print_calibration
        from rexport.cli._gate import print_gate
        from rexport.cli._recovery import print_recovery

        target = self.asked.target
        print(
            f"target {target.name}: {np.dtype(target.activations.dtype)} activations, int8 weights in "
            f"±{target.weights.high}: {target.because}"
        )
        print_calibration(self.calibrated, self.asked.calibration)
        print_recovery(self.recovery)
        if self.gate is not None:
            print_gate(self.gate)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The file that was written, and what was measured of it."""

    quantized: Quantized
    tuned: Tuned
    executed: Counter[str]
    speed: Comparison | None

    def document(self) -> dict[str, Any]:
        """Return all of it as a JSON document."""
        from rexport.cli._gate import speed_json
        from rexport.cli._tuning import tuning_json

        output = self.quantized.asked.output
        return {
            **self.quantized.document(),
            "file": str(output),
            "bytes": output.stat().st_size,
            "executed": dict(self.executed),
            **speed_json(self.speed),
            **tuning_json(self.tuned),
        }

    def print(self) -> None:
        """Print all of it."""
        from rexport.cli._console import print_table
        from rexport.cli._gate import print_speed
        from rexport.cli._reports import size_of
        from rexport.cli._tuning import print_tuning

        asked, layers = self.quantized.asked, self.quantized.result.layers
        float_layers = [layer for layer in layers if layer.precision != "int8"]
        integer = len(layers) - len(float_layers)
        print(
            f"{asked.output}: {size_of(asked.output)} (from {size_of(asked.model)}), {integer} of {len(layers)} layers "
            "in INT8"
        )
        self.quantized.print()
        print_speed(self.speed)
        print_tuning(self.tuned)
        if float_layers:
            print_table(
                ["float layer", "operator", "precision", "why"],
                [[la.name, la.op_type, la.precision, la.why] for la in float_layers],
                left=(0, 1, 2, 3),
            )

    def note_float_convolutions(self) -> None:
        """Say if ONNX Runtime computes in float what was to be integer, or stays so."""
        from rexport.cli._console import note
        from rexport.quantization import ONNX_RUNTIME

        in_float = self.executed["Conv"] + self.executed["FusedConv"]
        if self.quantized.asked.target.runtime == ONNX_RUNTIME and in_float:
            note(f"{in_float} convolutions still run in float on ONNX Runtime.")
