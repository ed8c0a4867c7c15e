"""The README's table of results, written from the files in ``benchmarks/results/``.

    python -m benchmarks.studies.readme

run in the repository, after a study has written a new file there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.studies._peers_table import by_batch, readme_rows
from rexport._files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["main", "table", "with_table"]

_BLOCK = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL)


def main() -> None:
    """Replace the table in ``README.md``."""
    readme = Path("README.md")
    write_text(readme, with_table(readme.read_text(encoding="utf-8"), Path("benchmarks", "results")))


def with_table(text: str, results: Path) -> str:
    """Return the README's text with the table of the figures in ``results``."""
    return _BLOCK.sub(lambda _: f"\n{table(results)}\n", text)


def table(results: Path) -> str:
    """Return the table in Markdown: what was measured, the figure, and the study that measures it."""
    lines = ["| measured | figure | study |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {claim} | {figure} | `{study}` |" for claim, figure, study in _rows(results)), ""])


def _rows(results: Path) -> Iterator[tuple[str, str, str]]:
    def read(study: str) -> Any:
        return json.loads((results / f"{study}.json").read_text(encoding="utf-8"))

    for part in (_of_speed, _of_files, _of_peers, _of_benchmarks, _of_exports, _of_calibration, _of_proofs):
        yield from part(read)


def _of_speed(read: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    speeds = [row for row in read("int8-speed")["rows"] if ".int8." in row["model"]]
    for model, rows in _grouped(speeds, "model"):
        figures = {
            row["batch"]: f"{row['speedup']:.2f} × FP32 ({row['speedup_interval'][0]:.2f} to "
            f"{row['speedup_interval'][1]:.2f}), {row['images_per_second']:.0f} img/s"
            for row in rows
        }
        yield f"{model.removesuffix('.int8.onnx')} INT8, ONNX Runtime", by_batch(figures), "int8_speed"
    regroup = read("regroup")
    figures = {
        measured["batch"]: f"{measured['speedup_over']['int8']['ratio']:.2f} × the same file not regrouped, "
        f"{measured['speedup_over']['fp32']['ratio']:.2f} × FP32"
        for measured in regroup["batches"]
    }
    yield f"{regroup['network']} INT8, `--regroup measure`", by_batch(figures), "regroup"
    raw = read("raw-image")
    for precision, gains in _grouped([gain for gain in raw["speedups"] if gain["from_pixels"]], "precision"):
        figures = {gain["batch"]: f"{gain['ratio']:.2f} × the normalised file" for gain in gains}
        yield f"{raw['network']} {precision.upper()}, `--raw-image`, pixels to logits", by_batch(figures), "raw_image"


def _of_files(read: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    peers = read("fusion-peers")
    for network in dict.fromkeys(row["network"] for row in peers["rows"]):
        tools = {row["tool"]: row for row in peers["rows"] if row["network"] == network}
        seconds = {tool: median(row["seconds"]) for tool, row in tools.items() if row["seconds"]}
        peers_figures = [f"{tools[peer]['nodes']} in {seconds[peer]:.1f} s" for peer in ("onnxslim", "onnxsim")]
        fused, proven = seconds["rexport --no-verify"], seconds["rexport"]
        own_figures = f"{tools['rexport']['nodes']} in {fused:.1f} s, proven in {proven:.1f} s"
        name = "ResNeXt-29 (8×16d) in form (a)" if "form=a" in network else network
        yield (
            f"{name}, `rexport fuse`; onnxslim; onnxsim",
            f"nodes {'; '.join([own_figures, *peers_figures])}",
            "fusion_peers",
        )
    forms = read("resnext-forms")["rows"]
    yield (
        "ResNeXt-50 in the paper's forms " + ", ".join(f"({row['form']})" for row in forms),
        ", ".join(f"{row['nodes_exported']} → {row['nodes']}" for row in forms) + " nodes, equal outputs",
        "resnext_forms",
    )
    for row in read("cifar-accuracy")["rows"]:
        fp32, int8 = row["fp32"], row["int8"]
        figure = f"top-1 {100 * fp32['top1']:.2f} % → {100 * int8['top1']:.2f} %, agreement {int8['agreement']:.3f}"
        yield f"{row['network']}, FP32 → INT8, {fp32['images']} images", figure, "cifar_accuracy"


def _of_peers(read: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    yield from _beside_peers(read("int8-peers")["summary"])
    for study in ("peers", "peers-avx2"):
        beside = read(study)
        yield from readme_rows(beside, on=_unless_vnni(beside))


def _of_benchmarks(read: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    repeated = read("an-hour-apart")
    same = [row["verdict"] == "same" for row in repeated["changes"]["rows"]]
    claim = f"`rexport bench --compare` with a run an hour before, resnet50{_unless_vnni(repeated)}"
    yield claim, f"{sum(same)} of {len(same)} rows the same within their intervals", "rexport bench"
    alike = read("self-test")
    yield (
        f"A against A, {alike['model']} on ONNX Runtime{_unless_vnni(alike)}",
        f"{alike['held']} of {alike['repetitions']} intervals of the ratio contain 1",
        "self_test",
    )
    engines = read("engine-builds")
    for row in engines["rows"]:
        yield (
            f"INT8 engine of {row['model'].removesuffix('.onnx')} for TensorRT for RTX, built without a GPU",
            f"{median(row['seconds']):.1f} s, {row['int8_layers']} of {row['layers']} layers in INT8",
            "engine_builds",
        )


def _of_exports(read: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    export = read("export-time")
    yield f"`rexport onnx {export['network']}`", f"{export['ratio']:.2f} × a bare `torch.onnx.export`", "export_time"
    zoo = read("zoo-parity")["rows"]
    worst = max(row["parity"]["difference"] for row in zoo)
    yield (
        f"`rexport onnx`, all {len(zoo)} networks",
        f"outputs differ from PyTorch's by {worst:.0e} at most",
        "zoo_parity",
    )
    depth = read("export-depth")
    deepest = max(depth["rows"], key=lambda row: min(row["seconds"]))
    yield (
        f"`rexport onnx {deepest['network']}`",
        f"{median(deepest['seconds']):.0f} s; a layer costs {depth['ratios']['per_layer']:.2f} × one of ResNet-110",
        "export_depth",
    )


def _of_calibration(read: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    speed = read("calibration-speed-avx2")
    few, many = speed["memory"]
    yield (
        f"calibration of {speed['network']}, entropy{_unless_vnni(speed)}",
        (
            f"{speed['ratio_to_bare']:.2f} × the bare inference, {few['peak_memory_mib']:.0f} and "
            f"{many['peak_memory_mib']:.0f} MiB with {few['images']} and {many['images']:,} pictures"
        ),
        "calibration_speed",
    )
    over = read("calibration-speed")["speedup_over"]
    yield (
        f"calibration of {speed['network']}, entropy, by onnxruntime",
        f"{over['onnxruntime']:.1f} × as long a picture, with 2048 bins {over['onnxruntime-2048']:.0f} ×",
        "calibration_speed",
    )
    memory = read("calibration-memory")
    first, last = memory["rows"][0], memory["rows"][-1]
    yield (
        f"`rexport quantize`, {memory['network']}, {first['images']} and {last['images']} pictures",
        f"{first['peak_memory_mib']:.0f} and {last['peak_memory_mib']:.0f} MiB",
        "calibration_memory",
    )


def _of_proofs(read: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    proof = read("proof-cost")
    yield (
        f"the proof in `rexport quantize`, {proof['network']}, {proof['images']} pictures, {proof['machine']['cpu']}",
        f"{100 * proof['share']:.1f} % of {median(proof['seconds']['--verify']):.1f} s",
        "proof_cost",
    )
    networks = read("random-networks")
    first, end = networks["seeds"]
    judged = sum(sum(row.values()) for row in networks["counts"].values())
    yield (
        f"{end - first:,} random networks, {len(networks['counts'])} targets and recoveries",
        f"{len(networks['faults'])} of {judged:,} files wrong without a word",
        "random_networks",
    )
    yield from _of_devices(read("reliability")["parts"])


def _grouped(rows: list[dict[str, Any]], key: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each value under ``key``, in order, and its rows."""
    for value in dict.fromkeys(row[key] for row in rows):
        yield value, [row for row in rows if row[key] == value]


def _unless_vnni(study: dict[str, Any]) -> str:
    """Return what to add to a speed that was not measured on the processor that the table names."""
    machine = study["machine"]
    return "" if machine["vnni"] else f", {machine['int8'].split(',')[0]}"


def _of_devices(parts: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    control = parts["power-cuts"]["control"]
    names = {
        "power-cuts": "the power cut during or after an install",
        "system-calls": "a system call of an install or a rollback killed, out of room or in error",
        "ssh": "SSH cut or the device rebooted at each step of a roll-out; strangers at either end",
        "tampering": "a byte of a bundle changed, or its end cut off",
        "attacks": "the attacks of TUF's list",
        "self-checks": "wrong models and runtimes, after which the version before is back",
        "concurrency": "two installs and a rollback at once",
        "mutations": "wrong files into `inspect`, `fuse`, `quantize`",
    }
    notes = {"power-cuts": f" (without fsync {control['failures']} of {control['cases']})"}
    for name, claim in names.items():
        figure = f"{parts[name]['failures']} of {parts[name]['cases']:,} end badly"
        yield claim, figure + notes.get(name, ""), "reliability"


def _beside_peers(summary: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for line in summary:
        networks = line["networks"]
        margins = [row["sqnr_db"] - row["best_peer_sqnr_db"] for row in networks]
        yield (
            (
                f"INT8 for {line['target']}, {len(networks)} trained CIFAR-10 networks, against the best of "
                "onnxruntime's and NNCF's settings"
            ),
            (
                f"SQNR {min(margins):+.1f} to {max(margins):+.1f} dB, "
                f"{line['disagreement_of_best_peer']:.2f} × as many other answers than FP32, "
                f"top-1 {-line['mean_drop_points']:+.2f} points"
            ),
            "int8_peers",
        )


if __name__ == "__main__":
    main()
