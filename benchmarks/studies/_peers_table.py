"""The tables of the comparison with peers, and its rows among all results, from what ``benchmarks/peers`` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["by_batch", "markdown", "readme_rows"]

_RUNTIMES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO"}


def readme_rows(document: dict[str, Any], *, on: str) -> Iterator[tuple[str, str, str]]:
    """Yield what was measured, with ``on`` at its end, the figure, and where: INT8 against the best peer."""
    figures: dict[tuple[str, str], dict[int, str]] = {}
    for line in document["summary"]["speed"]:
        if line["precision"] == "int8":
            low, high = line["interval"]
            figures.setdefault((line["network"], line["runtime"]), {})[line["batch"]] = (
                f"{line['ratio']:.2f} × {line['best_peer']['tool']} ({low:.2f} to {high:.2f}), "
                f"{line['ours']['images_per_second']:.0f} img/s"
            )
    for (network, runtime), batches in figures.items():
        subject = f"{network} INT8 on {_runtime_name(runtime)} against the fastest peer{on}"
        yield subject, by_batch(batches), "peers"


def by_batch(figures: dict[int, str]) -> str:
    """Return figures of several batch sizes in a line."""
    return "; ".join(f"batch {batch}: {figure}" for batch, figure in figures.items())


def markdown(document: dict[str, Any]) -> str:
    """Return the tables of a document ``rexport.study.peers/1``: speed, accuracy, and what making the files took."""
    parts = [_speed(document), _accuracy(document), _files(document)]
    return "\n".join(part for part in parts if part)


def _speed(document: dict[str, Any]) -> str:
    rows = [
        (
            line["network"],
            line["precision"].upper(),
            _runtime_name(line["runtime"]),
            str(line["batch"]),
            f"{line['ours']['images_per_second']:.1f} ({line['ours']['setting']})",
            f"{ratio['tool']} ({ratio['setting']})",
            f"{ratio['images_per_second']:.1f}",
            f"{ratio['ratio']:.3f} ({ratio['interval'][0]:.3f} to {ratio['interval'][1]:.3f})",
        )
        for line in document["summary"]["speed"]
        for ratio in line["ratios"]
    ]
    heads = ("network", "precision", "runtime", "batch", "rexport, img/s", "peer", "peer, img/s", "ratio (95 %)")
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
    heads = ("network", "tool", "settings", "best agreement", "best SQNR, dB", "smallest top-1 drop, points")
    return _table(heads, rows)


def _files(document: dict[str, Any]) -> str:
    rows = [
        (
            row["network"],
            row["tool"],
            row["setting"],
            _number(row["seconds"], ".1f") if row["reason"] is None else f"fails: {_cell(row['reason'])}",
            _number(row["peak_memory_mib"], ".0f"),
            _number(row["agreement"], ".3f"),
            _number(row["sqnr_db"], ".1f") + (", broken" if row["broken"] else ""),
        )
        for row in document["rows"]
    ]
    return _table(("network", "tool", "setting", "seconds", "peak MiB", "agreement", "SQNR, dB"), rows)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _runtime_name(runtime: str) -> str:
    return _RUNTIMES.get(runtime, runtime)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
