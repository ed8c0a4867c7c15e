"""Time and memory of calibration, against bare inference of the same pictures and ONNX Runtime's entropy calibration.

    python -m benchmarks.studies.calibration_speed --data DIR_OF_PICTURES

All with the entropy calibrator: ONNX Runtime's with its default of 128 bins, among which there is no threshold to
choose, and with 2048, as here. It keeps every activation of every picture, and so gets fewer pictures; its time for
each is compared. The network's weights are random: no figure depends on them. Linux only.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.studies._commands import REXPORT, run
from benchmarks.studies._results import JsonFile, write_results

__all__ = ["main"]

_PEERS = ("onnxruntime", "onnxruntime-2048")


def main(
    data: Annotated[Path, typer.Option(help="A folder of pictures.", exists=True, file_okay=False)],
    network: Annotated[str, typer.Option(help="A network's name.")] = "resnet50",
    samples: Annotated[int, typer.Option(help="Pictures to run and to calibrate with.")] = 256,
    peer_samples: Annotated[int, typer.Option(help="Pictures for ONNX Runtime; 0 leaves it out.")] = 32,
    memory_at: Annotated[str, typer.Option(help="Numbers of pictures whose memory is compared.")] = "64,1000",
    rounds: Annotated[int, typer.Option(help="How often each is measured, in turns.")] = 3,
    json_file: JsonFile = None,
) -> None:
    """Measure each in a process of its own, in turns, and print medians."""
    images = {"bare": samples, "rexport": samples, **dict.fromkeys(_PEERS, peer_samples)}
    measured: dict[str, list[dict[str, float]]] = {work: [] for work, count in images.items() if count}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "m.onnx"
        run([*REXPORT, "onnx", network, "-o", str(model)], cwd=Path(folder))
        for _ in range(rounds):
            for work, runs in measured.items():
                runs.append(_measure(work, model, data, images[work]))
        memory = [
            {"images": count, "peak_memory_mib": _measure("rexport", model, data, count)["peak_memory_mib"]}
            for count in (int(text) for text in memory_at.split(","))
        ]
    rows = [_row(work, images[work], runs) for work, runs in measured.items()]
    ratio = _median_ratio(rows, "rexport", "bare")
    print(f"calibration takes {ratio:.2f} × the bare inference")
    for row in memory:
        print(f"calibration with {row['images']} pictures: {row['peak_memory_mib']:.0f} MiB at most")
    faster = {peer: _median_ratio(rows, peer, "rexport") for peer in _PEERS if measured.get(peer)}
    for peer, ratio_to_peer in faster.items():
        print(f"each picture takes {peer} {ratio_to_peer:.1f} × as long")
    write_results(
        json_file,
        "calibration-speed",
        network=network,
        rows=rows,
        memory=memory,
        ratio_to_bare=ratio,
        speedup_over=faster,
    )


def _measure(work: str, model: Path, data: Path, samples: int) -> dict[str, float]:
    arguments = [work, str(model), str(data), str(samples)]
    command = [sys.executable, "-P", str(Path(__file__).with_name("_calibrate.py")), *arguments]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return figures


def _row(work: str, images: int, runs: list[dict[str, float]]) -> dict[str, Any]:
    """Return the figures of all rounds, and print them."""
    seconds = [figures["seconds"] for figures in runs]
    most = max(figures["peak_memory_mib"] for figures in runs)
    ms_per_image = 1e3 * statistics.median(seconds) / images
    print(f"{work}: {ms_per_image:.1f} ms a picture over {images}, {most:.0f} MiB at most")
    return {"what": work, "images": images, "seconds": seconds, "peak_memory_mib": most}


def _median_ratio(rows: list[dict[str, Any]], first: str, second: str) -> float:
    """Return how much longer each picture takes: the median of the rounds' ratios, which a drift hits alike."""
    by_name = {row["what"]: [second / row["images"] for second in row["seconds"]] for row in rows}
    ratios = [a / b for a, b in zip(by_name[first], by_name[second], strict=True)]
    return float(statistics.median(ratios))


if __name__ == "__main__":
    typer.run(main)
