"""The table of the peers' comparison, and the README's rows, from the file that ``benchmarks/peers`` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["markdown", "readme_rows"]

_RUNTIMES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO"}


def readme_rows(document: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what was measured, the figure, and where: INT8 against the best peer, for each network and runtime."""
    lines = [line for line in document["summary"]["speed"] if line["precision"] == "int8"]
    for line in lines:
        low, high = line["interval"]
        peer = line["best_peer"]
        yield (
            f"{line['network']} INT8, {_runtime(line)}, batch {line['batch']}, against the best of the peers",
            (
                f"{line['ratio']:.2f} × {peer['tool']} ({low:.2f} to {high:.2f}), "
                f"{line['ours']['images_per_second']:.0f} img/s"
            ),
            "peers",
        )


def markdown(document: dict[str, Any]) -> str:
    """Return the tables of a document ``rexport.study.peers/1``: speed, accuracy, and what making the files took."""
    parts = [_speed(document), _accuracy(document), _files(document)]
    return "\n".join(part for part in parts if part)


def _speed(document: dict[str, Any]) -> str:
    rows = [
        (
            line["network"],
            line["precision"].upper(),
            _runtime(line),
            str(line["batch"]),
            f"{line['ours']['images_per_second']:.1f} ({line['ours']['setting']})",
            f"{ratio['tool']} ({ratio['setting']})",
            f"{ratio['images_per_second']:.1f}",
            f"{ratio['ratio']:.3f} ({ratio['interval'][0]:.3f} to {ratio['interval'][1]:.3f})",
        )
        for line in document["summary"]["speed"]
        for ratio in line["ratios"]
    ]
    heads = ("network", "precision", "runtime", "batch", "rexport, img/s", "peer", "its img/s", "ratio (95 %)")
    return _table(heads, rows)


def _accuracy(document: dict[str, Any]) -> str:
    rows = [
        (
            line["network"],
            line["tool"],
            str(line["settings"]),
            f"{line['agreement']:.4f}",
            f"{line['sqnr_db']:.1f}",
            f"{line['drop_points']:+.2f}",
        )
        for line in document["summary"]["accuracy"]
    ]
    heads = ("network", "tool", "settings", "best agreement", "best SQNR, dB", "least drop of top-1, points")
    return _table(heads, rows)


def _files(document: dict[str, Any]) -> str:
    rows = [
        (
            made["network"],
            made["tool"],
            made["setting"],
            _number(made["seconds"], ".1f") if made["reason"] is None else f"fails: {_cell(made['reason'])}",
            _number(made["peak_memory_mib"], ".0f"),
            _number(made["agreement"], ".3f"),
            _number(made["sqnr_db"], ".1f") + (", broken" if made["broken"] else ""),
        )
        for made in document["rows"]
    ]
    return _table(("network", "tool", "setting", "seconds", "peak MiB", "agreement", "SQNR, dB"), rows)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _runtime(line: dict[str, Any]) -> str:
    runtime = str(line["runtime"])
    return _RUNTIMES.get(runtime, runtime)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
