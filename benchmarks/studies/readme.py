"""The tables of results in ``docs/results.md`` and ``README.md``, written from the files in ``benchmarks/results/``.

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
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["TABLES", "highlights", "main", "table", "with_table"]

_BLOCK = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL)


_HIGHLIGHTS = (
    "resnet50 INT8 on ONNX Runtime",
    "resnext50_32x4d INT8 on ONNX Runtime against",
    "INT8 for x86",
    "export of all",
    "INT8 engine of resnet50 ",
    "power cut",
)  # how the rows in the README begin


def main() -> None:
    """Replace the table in each of the files."""
    for name, make_table in TABLES.items():
        text = Path(name).read_text(encoding="utf-8")
        write_text(Path(name), with_table(text, make_table(Path("benchmarks", "results"))))


def with_table(text: str, new_table: str) -> str:
    """Return a file's text with another table between its markers."""
    return _BLOCK.sub(lambda _: f"\n{new_table}\n", text)


def table(results: Path) -> str:
    """Return the whole table in Markdown: what was measured, the result, and the study that measures it."""
    return _markdown(_rows(results))


def highlights(results: Path) -> str:
    """Return the README's rows of the table."""
    rows = list(_rows(results))
    return _markdown(next(row for row in rows if row[0].startswith(beginning)) for beginning in _HIGHLIGHTS)


def _markdown(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = ["| measured | result | study |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {claim} | {figure} | `{study}` |" for claim, figure, study in rows), ""])


TABLES = {"README.md": highlights, "docs/results.md": table}
"""The files with a table, by their paths in the repository, and what makes it."""


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
        yield f"{model.removesuffix('.int8.onnx')} INT8 on ONNX Runtime", by_batch(figures), "int8_speed"
    regroup = read("regroup")
    figures = {
        measured["batch"]: f"{measured['speedup_over']['int8']['ratio']:.2f} × the file without it, "
        f"{measured['speedup_over']['fp32']['ratio']:.2f} × FP32"
        for measured in regroup["batches"]
    }
    yield f"{regroup['network']} INT8, `--regroup measure`", by_batch(figures), "regroup"
    raw = read("raw-image")
    for precision, gains in _grouped([gain for gain in raw["speedups"] if gain["from_pixels"]], "precision"):
        figures = {gain["batch"]: f"{gain['ratio']:.2f} × the file with float input" for gain in gains}
        yield (
            f"{raw['network']} {precision.upper()} with `--raw-image`, pixels to logits",
            by_batch(figures),
            "raw_image",
        )


def _of_files(read: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    peers = read("fusion-peers")
    for network in dict.fromkeys(row["network"] for row in peers["rows"]):
        tools = {row["tool"]: row for row in peers["rows"] if row["network"] == network}
        seconds = {tool: median(row["seconds"]) for tool, row in tools.items() if row["seconds"]}
        peers_figures = [f"{tools[peer]['nodes']} in {seconds[peer]:.1f} s" for peer in ("onnxslim", "onnxsim")]
        fused, proven = seconds["rexport --no-verify"], seconds["rexport"]
        own_figures = f"{tools['rexport']['nodes']} nodes in {fused:.1f} s ({proven:.1f} s with the proof)"
        name = "ResNeXt-29 (8×16d) in form (a)" if "form=a" in network else network
        yield (
            f"{name} fused by rexport; onnxslim; onnxsim",
            "; ".join([own_figures, *peers_figures]),
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
    yield from _of_floor(read("activation-floor")["rows"])


def _of_peers(read: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    yield from _beside_peers(read("int8-peers")["summary"])
    for study in ("peers", "peers-avx2"):
        beside = read(study)
        yield from readme_rows(beside, on=_unless_vnni(beside))


def _of_benchmarks(read: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    repeated = read("an-hour-apart")
    same = [row["verdict"] == "same" for row in repeated["changes"]["rows"]]
    claim = f"resnet50{_unless_vnni(repeated)}, two runs an hour apart compared by `rexport bench --compare`"
    yield claim, f"{sum(same)} of {len(same)} rows equal within their intervals", "rexport bench"
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
    yield (
        f"`rexport onnx {export['network']}`",
        f"{export['ratio']:.2f} × the time of a bare `torch.onnx.export`",
        "export_time",
    )
    zoo = read("zoo-parity")["rows"]
    worst = max(row["parity"]["difference"] for row in zoo)
    yield (
        f"export of all {len(zoo)} networks",
        f"max relative difference from PyTorch {worst:.0e}",
        "zoo_parity",
    )
    depth = read("export-depth")
    deepest = max(depth["rows"], key=lambda row: min(row["seconds"]))
    yield (
        f"`rexport onnx {deepest['network']}`",
        f"{median(deepest['seconds']):.0f} s, {depth['ratios']['per_layer']:.2f} × the time per layer of ResNet-110",
        "export_depth",
    )


def _of_calibration(read: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    speed = read("calibration-speed-avx2")
    few, many = speed["memory"]
    yield (
        f"calibration of {speed['network']}, entropy{_unless_vnni(speed)}",
        (
            f"{speed['ratio_to_bare']:.2f} × the time of bare inference; {few['peak_memory_mib']:.0f} MiB with "
            f"{few['images']} images, {many['peak_memory_mib']:.0f} MiB with {many['images']:,}"
        ),
        "calibration_speed",
    )
    over = read("calibration-speed")["speedup_over"]
    yield (
        f"calibration of {speed['network']}, entropy, against onnxruntime",
        f"{over['onnxruntime']:.1f} × as fast, with 2048 bins {over['onnxruntime-2048']:.0f} ×",
        "calibration_speed",
    )
    memory = read("calibration-memory")
    first, last = memory["rows"][0], memory["rows"][-1]
    yield (
        f"memory of `rexport quantize`, {memory['network']}",
        "; ".join(f"{row['peak_memory_mib']:.0f} MiB with {row['images']:,} images" for row in (first, last)),
        "calibration_memory",
    )


def _of_proofs(read: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    proof = read("proof-cost")
    yield (
        f"proof in `rexport quantize`, {proof['network']}, {proof['images']} images, {proof['machine']['cpu']}",
        f"{100 * proof['share']:.1f} % of {median(proof['seconds']['--verify']):.1f} s",
        "proof_cost",
    )
    networks = read("random-networks")
    first, end = networks["seeds"]
    judged = sum(sum(row.values()) for row in networks["counts"].values())
    yield (
        f"{end - first:,} random networks, {len(networks['counts'])} targets and recoveries",
        f"{len(networks['faults']) or 'no'} silently wrong files among {judged:,}",
        "random_networks",
    )
    yield from _of_foreign_models(read("foreign-models"))
    yield from _of_devices(read("reliability")["parts"])


def _of_foreign_models(study: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    steps, counts = study["counts"], study["counts"].values()
    yield (
        f"{study['models']} models of other projects through " + ", ".join(f"`{step}`" for step in steps),
        (
            f"{sum(row.get('wrong', 0) for row in counts) or 'none'} wrong, "
            f"{max(row.get('refused', 0) for row in counts)} refused"
        ),
        "foreign_models",
    )
    beside = [row["steps"]["quantize"] for row in study["rows"] if "speed_over_peer" in row["steps"]["quantize"]]
    margins = [row["sqnr_db"] - row["peer_sqnr_db"] for row in beside]
    speeds = [row["speed_over_peer"] for row in beside]
    yield (
        f"INT8 of {len(beside)} of them against onnxruntime's",
        (
            f"SQNR {median(margins):+.1f} dB (lowest {min(margins):+.1f}), {median(speeds):.2f} × as fast "
            f"(lowest {min(speeds):.2f})"
        ),
        "foreign_models",
    )


def _of_floor(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for row in rows:
        yield (
            f"{row['network'].split('[')[0]} ({row['weights']}): answers that INT8 changes of {row['images']:,}",
            f"{row['int8']}; 8-bit activations with float weights {row['activations']}",
            "activation_floor",
        )


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
        "power-cuts": "power cut during or after an install",
        "system-calls": "install or rollback killed, out of disk space or with an I/O error at any system call",
        "ssh": "connection cut or device rebooted at any step of a roll-out; unknown hosts and clients",
        "tampering": "any byte of a bundle changed, or its end cut off",
        "attacks": "the attacks that The Update Framework lists",
        "self-checks": "wrong models and runtimes: rolls back automatically",
        "concurrency": "two installs and a rollback at once",
        "mutations": "malformed files into `inspect`, `fuse`, `quantize`",
    }
    notes = {"power-cuts": f" (without fsync {control['failures']} in {control['cases']})"}
    for name, claim in names.items():
        figure = f"{parts[name]['failures'] or 'no'} failures in {parts[name]['cases']:,} runs"
        yield claim, figure + notes.get(name, ""), "reliability"


def _beside_peers(summary: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for line in summary:
        networks = line["networks"]
        margins = [row["sqnr_db"] - row["best_peer_sqnr_db"] for row in networks]
        yield (
            (
                f"INT8 for {line['target']} of {len(networks)} trained CIFAR-10 networks against the best settings of "
                "onnxruntime and NNCF"
            ),
            (
                f"SQNR {min(margins):+.1f} to {max(margins):+.1f} dB, "
                f"{_fewer(line['disagreement_of_best_peer'])} predictions changed, "
                f"mean top-1 {-line['mean_drop_points']:+.2f} points from FP32"
            ),
            "int8_peers",
        )


def _fewer(ratio: float) -> str:
    percent = 100 * (1 - ratio)
    return f"{percent:.0f} % fewer" if percent >= 0 else f"{-percent:.0f} % more"


if __name__ == "__main__":
    main()
