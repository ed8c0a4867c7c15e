"""Models that nobody here made through ``inspect``, ``fuse``, ``quantize``, ``eval`` and ``bench``: what came of each.

    python -m benchmarks.studies.foreign_models --models DIR --python ENVIRONMENT/bin/python --pictures DIR

makes the models of ``_foreign_models`` in DIR, those that are not there yet, with another environment's Python (its
packages are named there), and runs every step in processes of their own, with limits of time and memory. A step is

    right     it ends with exit code 0, and the result holds: fused outputs are equal within 1e-4 (float16: 1e-2), or
              four times what ONNX Runtime's own optimizations change, for networks that magnify rounding; the INT8
              file keeps an SQNR, on examples that it was not calibrated on, of no more than 1 dB below that of
              ``onnxruntime.quantization`` (QDQ, U8S8, per channel, MinMax) with the same examples, where that tool can
              quantize the model; ``eval`` reports that SQNR within 1 dB
    no gain   ``quantize`` ends with exit code 4, as its file would be no smaller, and neither is the peer's, if any
    refused   it ends with a sentence and a documented exit code
    wrong     results differ, a traceback, a crash, or it runs out of time or memory
    -         there was no file for it, or ONNX Runtime does not load the model

All comparisons are made by ``_foreign_judge``, with ONNX Runtime alone. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import fnmatch
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.studies._commands import REXPORT
from benchmarks.studies._results import JsonFile, write_results

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["STEPS", "Limits", "judge", "main", "outcome", "run_limited"]

STEPS = ("inspect", "fuse", "quantize", "eval", "bench")
RIGHT, NO_GAIN, REFUSED, WRONG, SKIPPED = "right", "no gain", "refused", "wrong", "-"
_REFUSALS = range(1, 7)  # exit codes with a meaning
_NOT_AS_GOOD = 4
_TOLERANCE, _TOLERANCE_HALF = 1e-4, 1e-2
_ROUNDINGS = 4
_SLACK_DB = 1.0
_EXACT_DB = 200.0  # of outputs that are equal, as _foreign_judge has it
_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a process may take."""

    seconds: float
    memory_gib: float


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that ended: its exit code, ``None`` if its time ran out, and what it wrote."""

    code: int | None
    output: str
    errors: str
    seconds: float


@dataclass
class Outcome:
    """What came of a step: its verdict, the sentence that says why, and figures."""

    verdict: str
    why: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object without what is empty."""
        fields = {"verdict": self.verdict, "why": self.why, **self.figures}
        return {key: value for key, value in fields.items() if value not in ("", None)}


def main(
    models: Annotated[Path, typer.Option(help="The folder of the models.")],
    python: Annotated[
        Path | None, typer.Option(help="An interpreter with the packages that make models; without it, none are made.")
    ] = None,
    pictures: Annotated[Path | None, typer.Option(help="A folder of pictures to make examples of.")] = None,
    only: Annotated[str, typer.Option(metavar="PATTERN,...", help="Only models whose names match.")] = "*",
    steps: Annotated[str, typer.Option(metavar="STEP,...", help="Only these steps.")] = ",".join(STEPS),
    recover: Annotated[str | None, typer.Option(help="The --recover of `rexport quantize`.")] = None,
    timeout: Annotated[float, typer.Option(help="The most seconds of a step.")] = 120.0,
    memory: Annotated[float, typer.Option(help="The most memory of a process, in GiB of addresses.")] = 16.0,
    json_file: JsonFile = None,
) -> None:
    """Take models of other projects through the steps of deployment, and judge each."""
    unknown = [step for step in steps.split(",") if step not in STEPS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(STEPS)}.", param_hint="--steps")
    if python is not None:
        _make(models, python, pictures, only)
    limits = Limits(seconds=timeout, memory_gib=memory)
    rows = []
    try:
        for folder in _chosen(models, only):
            rows.append({"model": folder.name, **judge(folder, steps.split(","), limits, recover)})
            print(_in_words(rows[-1]), flush=True)
    except KeyboardInterrupt:
        print("interrupted: these are the models so far")
    counts = {
        step: dict(sorted(Counter(row["steps"][step]["verdict"] for row in rows if step in row["steps"]).items()))
        for step in STEPS
    }
    for step, verdicts in counts.items():
        print(f"{step:9} " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    write_results(json_file, "foreign-models", models=len(rows), counts=counts, rows=rows)
    if any(WRONG in verdicts for verdicts in counts.values()):
        raise typer.Exit(1)


def _make(models: Path, python: Path, pictures: Path | None, only: str) -> None:
    if pictures is None:
        raise typer.BadParameter("it is needed to make models.", param_hint="--pictures")
    script = [str(python.absolute()), "-P", str(_HERE / "_foreign_models.py")]
    subprocess.run([*script, str(models), str(pictures), *only.split(",")], check=True, stdout=sys.stderr)


def _chosen(models: Path, only: str) -> list[Path]:
    """Return the folders whose names match, the smallest model first."""
    folders = [
        folder
        for folder in models.iterdir()
        if not folder.name.startswith(".") and any(fnmatch.fnmatch(folder.name, part) for part in only.split(","))
    ]
    return sorted(folders, key=lambda folder: ((folder / "model.onnx").stat().st_size, folder.name))


def judge(folder: Path, steps: Sequence[str], limits: Limits, recover: str | None = None) -> dict[str, Any]:
    """Take the model in a folder through the steps; return the outcome of each."""
    with tempfile.TemporaryDirectory() as name:
        work = _Work(model=folder / "model.onnx", examples=folder, made=Path(name), limits=limits, recover=recover)
        outcomes = {step: getattr(work, step)() for step in STEPS if step in steps}
    size = (folder / "model.onnx").stat().st_size
    return {"bytes": size, "steps": {step: result.to_json() for step, result in outcomes.items()}}


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A model with its ``examples``, and the folder for what is ``made`` of it."""

    model: Path
    examples: Path
    made: Path
    limits: Limits
    recover: str | None = None

    @property
    def int8(self) -> Path:
        """The INT8 file, if it was written."""
        return self.made / "int8.onnx"

    @property
    def data(self) -> list[str]:
        """The arguments that name the examples to calibrate with."""
        return ["--data", str(self.examples / self.facts["data"]), *self.facts["options"]]

    @property
    def facts(self) -> dict[str, Any]:
        """What ``_foreign_models`` noted: the examples' form, the options of pictures, the shapes that are open."""
        facts: dict[str, Any] = json.loads((self.examples / "facts.json").read_text(encoding="utf-8"))
        return facts

    def inspect(self) -> Outcome:
        """Describe the file."""
        return self._rexport("inspect", str(self.model))[0]

    def fuse(self) -> Outcome:
        """Fuse it, and compare the results."""
        fused = self.made / "fused.onnx"
        result, _ = self._rexport("fuse", str(self.model), "-o", str(fused))
        if result.verdict != RIGHT:
            return result
        compared = self._compare("equal", self.model, fused)
        if isinstance(compared, str):
            return Outcome(WRONG, compared)
        difference = float(compared["difference"])
        result.figures["difference"] = compared["difference"]
        tolerance = _TOLERANCE_HALF if "fp16" in self.examples.name else _TOLERANCE
        if difference > max(tolerance, _ROUNDINGS * compared["rounding"]):
            result.verdict, result.why = WRONG, f"max relative difference {difference:.1e}"
        return result

    def quantize(self) -> Outcome:
        """Quantize it, and compare with the peer."""
        recovery = [] if self.recover is None else ["--recover", self.recover]
        result, document = self._rexport("quantize", str(self.model), *self.data, *recovery, "-o", str(self.int8))
        peer = self._peer()
        result.figures |= peer
        size = self.model.stat().st_size
        if result.figures.get("exit_code") == _NOT_AS_GOOD and peer.get("peer_bytes", size) >= size:
            result.verdict = NO_GAIN
        if result.verdict != RIGHT:
            return result
        layers = [layer["precision"] for layer in document["layers"]]
        proof = document["proof"] or {}
        result.figures |= {
            "bytes": self.int8.stat().st_size,
            "int8_layers": layers.count("int8"),
            "layers": len(layers),
            "proof": proof.get("verdict"),
        }
        ours = self._sqnr(self.int8)
        if isinstance(ours, str):
            return Outcome(WRONG, ours, result.figures)
        result.figures["sqnr_db"] = ours
        if "peer_sqnr_db" in peer:
            if ours < peer["peer_sqnr_db"] - _SLACK_DB:
                result.verdict, result.why = WRONG, f"{ours:.1f} dB, peer {peer['peer_sqnr_db']:.1f} dB"
            compared = self._compare("speed", self.made / "peer.onnx", self.int8)
            if not isinstance(compared, str):
                result.figures["speed_over_peer"] = compared["ratio"]
        return result

    def _peer(self) -> dict[str, Any]:
        """Return the size and the SQNR of the peer's file, or why there is none."""
        output = self.made / "peer.onnx"
        arguments = [str(self.model), str(self.examples / "calibration"), str(output), "u8s8", "MinMax"]
        ended = run_limited([sys.executable, "-P", str(_HERE / "_quantize_onnxruntime.py"), *arguments], self.limits)
        if ended.code != 0 or not output.exists():
            return {"peer_fails": _last_line(ended)}
        sqnr = self._sqnr(output)
        if isinstance(sqnr, str):
            return {"peer_fails": sqnr}
        return {"peer_bytes": output.stat().st_size, "peer_sqnr_db": sqnr}

    def eval(self) -> Outcome:
        """Compare the INT8 file with the float file by the command, and that figure with the judge's."""
        if not self.int8.exists():
            return Outcome(SKIPPED)
        command = ["eval", str(self.int8), *self._held_out(), "--reference", str(self.model)]
        result, document = self._rexport(*command)
        if result.verdict != RIGHT:
            return result
        ours = self._sqnr(self.int8)
        reported = _reported_db(document)
        result.figures["sqnr_db"] = reported
        if isinstance(ours, str) or reported is None:
            return Outcome(WRONG, f"it reports {reported} dB; the judge: {ours}", result.figures)
        if abs(reported - ours) > _SLACK_DB:
            result.verdict, result.why = WRONG, f"it reports {reported:.1f} dB, and the judge {ours:.1f} dB"
        return result

    def _held_out(self) -> list[str]:
        """Return the arguments that name examples for ``eval``."""
        folder = "heldout-pictures" if self.facts["data"] == "pictures" else "heldout"
        return ["--data", str(self.examples / folder)]

    def bench(self) -> Outcome:
        """Measure both files by the command."""
        if not self.int8.exists():
            return Outcome(SKIPPED)
        brief = ("--batch", "1", "--min-seconds", "0.3", "--launches", "1")
        shapes = [text for shape in self.facts.get("shapes", []) for text in ("--input", shape)]
        result, document = self._rexport("bench", str(self.model), str(self.int8), *brief, *shapes)
        if result.verdict == RIGHT:
            statuses = [row["status"] for row in document["rows"]]
            result.figures["speedup"] = document["rows"][-1].get("speedup")
            if any(status != "ok" for status in statuses):
                result.verdict, result.why = WRONG, f"rows are {', '.join(map(str, statuses))}"
        return result

    def _rexport(self, *arguments: str) -> tuple[Outcome, Any]:
        """Run a command; return its outcome, and its document."""
        ended = run_limited([*REXPORT, *arguments, "--json"], self.limits)
        result = outcome(ended)
        document = None
        if result.verdict == RIGHT:
            try:
                document = json.loads(ended.output)
            except ValueError:
                return Outcome(WRONG, "it prints no JSON document", result.figures), None
        elif result.verdict == REFUSED and isinstance(self._compare("sqnr", self.model, self.model), str):
            result.verdict = SKIPPED
        return result, document

    def _sqnr(self, file: Path) -> float | str:
        """Return the lowest SQNR of an output, or what is wrong with the file."""
        compared = self._compare("sqnr", self.model, file)
        if isinstance(compared, str):
            return compared
        values = list(compared["sqnr_db"].values())
        return "an output is not finite" if None in values else min(values)

    def _compare(self, command: str, first: Path, second: Path) -> dict[str, Any] | str:
        """Return what the judge says, or how it failed."""
        script = [sys.executable, "-P", str(_HERE / "_foreign_judge.py"), command, str(first), str(second)]
        ended = run_limited([*script, str(self.examples / "heldout")], self.limits)
        if ended.code != 0:
            return f"ONNX Runtime fails: {_last_line(ended)}"
        result: dict[str, Any] = json.loads(ended.output.splitlines()[-1])
        return result


def run_limited(command: Sequence[str], limits: Limits) -> Ended:
    """Run a command in a process group of its own, and end all of it when its time is up."""

    def limit() -> None:
        addresses = int(limits.memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))

    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=limit,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "10000"},
    )
    code: int | None
    try:
        output, errors = process.communicate(timeout=limits.seconds)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        code = None
    return Ended(code=code, output=output, errors=errors, seconds=time.perf_counter() - start)


def outcome(ended: Ended) -> Outcome:
    """Return the verdict on a command of rexport by how it ended, before its result is looked at."""
    figures = {"seconds": round(ended.seconds, 2)}
    if ended.code is None:
        return Outcome(WRONG, f"no answer within {ended.seconds:.0f} s", figures)
    if "Traceback (most recent call last)" in ended.errors:
        return Outcome(WRONG, f"traceback: {_last_line(ended)}", figures)
    if ended.code == 0:
        return Outcome(RIGHT, "", figures)
    if ended.code not in _REFUSALS:
        return Outcome(WRONG, f"it ended with exit code {ended.code}: {_last_line(ended)}", figures)
    return Outcome(REFUSED, _last_line(ended), figures | {"exit_code": ended.code})


def _reported_db(document: dict[str, Any]) -> float | None:
    """Return the SQNR that ``eval`` reports, of the worst output; equal outputs have none, and 200 stands for it."""
    if "outputs" in document:
        values = [output["sqnr_db"] for output in document["outputs"]]
    else:
        values = [document.get("sqnr_db")]
    return min(_EXACT_DB if value is None else value for value in values)


def _last_line(ended: Ended) -> str:
    lines = ended.errors.strip().splitlines() or [f"exit code {ended.code}"]
    return lines[-1].strip()


def _in_words(row: dict[str, Any]) -> str:
    verdicts = " ".join(f"{row['steps'][step]['verdict']:8}" if step in row["steps"] else "" for step in STEPS)
    quantized = row["steps"].get("quantize", {})
    figures = ""
    if "sqnr_db" in quantized:
        peer = f"{quantized['peer_sqnr_db']:.1f}" if "peer_sqnr_db" in quantized else "none"
        speed = f", {quantized['speed_over_peer']:.2f} × its speed" if "speed_over_peer" in quantized else ""
        figures = f"{quantized['sqnr_db']:.1f} dB, peer {peer}{speed}"
    reasons = [f"\n    {step}: {result['why']}" for step, result in row["steps"].items() if "why" in result]
    return f"{row['model']:40} {verdicts} {figures}{''.join(reasons)}"


if __name__ == "__main__":
    typer.run(main)
