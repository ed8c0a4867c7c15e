"""The command of the comparison: ``python -m benchmarks.peers --help``, in the repository."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.studies._int8_settings import versions_of
from benchmarks.studies._peers_table import markdown
from benchmarks.studies._results import JsonFile, write_results
from rexport._errors import RexportError

from .environments import ENVIRONMENTS
from .files import Made, make
from .networks import Network
from .settings import ACCURACY, OURS, SPEED, Setting
from .speed import Contest, rexport_bench
from .summary import accuracy_summary, speed_summary

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["main"]


def main(
    environments: Annotated[Path, typer.Option(help="Where the peers are installed, once.")],
    files: Annotated[Path, typer.Option(help="Where models and INT8 files lie; those that are there are not remade.")],
    data: Annotated[Path | None, typer.Option(help="Pictures for --network: a flat folder.")] = None,
    network: Annotated[str, typer.Option(help="Networks with random weights, for speed.")] = "",
    trained: Annotated[
        list[str] | None, typer.Option(metavar="NETWORK:WEIGHTS:DATA", help="A trained network, for accuracy.")
    ] = None,
    on: Annotated[str, typer.Option(help="Runtimes.")] = "cpu,openvino",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8",
    samples: Annotated[int, typer.Option(min=1, help="Pictures to calibrate --network with.")] = 64,
    trained_samples: Annotated[int, typer.Option(min=1, help="Pictures to calibrate --trained with.")] = 512,
    only: Annotated[str, typer.Option(metavar="TOOL,...", help="Only these tools, such as rexport,nncf.")] = "",
    again: Annotated[str, typer.Option(metavar="TOOL,...|all", help="Make these tools' files anew.")] = "",
    screen_seconds: Annotated[float, typer.Option(min=0, help="For each file, to choose a tool's fastest.")] = 0.5,
    min_seconds: Annotated[float, typer.Option(min=0, help="For each file that is compared.")] = 4.0,
    launches: Annotated[int, typer.Option(min=1, help="How often those are measured, in new processes.")] = 1,
    no_bench: Annotated[bool, typer.Option("--no-bench", help="Make and judge the files only.")] = False,
    limit: Annotated[float, typer.Option(min=1, help="Seconds that a tool may take for a file.")] = 1800.0,
    json_file: JsonFile = None,
) -> None:
    """Install the peers, make each tool's file of each network, measure them side by side, and print the tables."""
    fast = [setting for setting in SPEED if _is_named(setting, only, everything=not only)]
    every = [*fast, *(setting for setting in ACCURACY if _is_named(setting, only, everything=not only))]
    if not every:
        tools = ", ".join(sorted({setting.tool.lower() for setting in (*SPEED, *ACCURACY)}))
        raise typer.BadParameter(f"{only} is none of {tools}.", param_hint="--only")
    cases = [(Network(name=name, weights=None, data=_needed(data)), fast, samples) for name in _split(network)]
    cases += [(Network.trained(text), every, trained_samples) for text in trained or ()]
    files.mkdir(parents=True, exist_ok=True)
    installed, versions, refused = _install(every, environments)
    rows: list[dict[str, Any]] = []
    speeds: list[dict[str, Any]] = []
    stopped = False
    try:
        for case, settings, count in cases:
            home = case.prepare(files, samples=count)
            outcomes = []
            for setting in settings:
                anew = _is_named(setting, again, everything=again == "all")
                outcome = _make(setting, home, installed, refused, again=anew, limit=limit)
                outcomes.append((setting, outcome))
                rows.append({"network": case.label, **outcome.to_json()})
                _say(f"{case.label}: {outcome.tool}, {outcome.setting}: {_in_words(outcome)}")
            if case.weights is None and not no_bench:
                contests = [
                    Contest(home=home, network=case.label, runtime=runtime, files=outcomes, bench=rexport_bench)
                    for runtime in _split(on)
                ]
                batches = [int(images) for images in _split(batch)]
                for measured in _measure(contests, batches, screen_seconds, min_seconds, launches):
                    speeds += measured
    except KeyboardInterrupt:
        stopped = True
        _say("stopped; this is what was measured until then")
    summary = {"speed": speed_summary(speeds), "accuracy": accuracy_summary(rows)}
    document = {"versions": versions, "rows": rows, "speeds": speeds, "summary": summary}
    print(markdown(document), end="")
    write_results(json_file, "peers", **document)
    if stopped:
        raise typer.Exit(130)


def _install(
    settings: list[Setting], folder: Path
) -> tuple[dict[str, Path], dict[str, dict[str, str]], dict[str, str]]:
    """Return the interpreters and the versions of the environments that are needed, and why others can't be had."""
    folder.mkdir(parents=True, exist_ok=True)
    installed: dict[str, Path] = {}
    versions = {OURS: versions_of(sys.executable, "rexport", "torch", "onnx")}
    refused: dict[str, str] = {}
    for environment in ENVIRONMENTS:
        if all(setting.environment != environment.name for setting in settings):
            continue
        _say(f"installing {environment.distribution}")
        try:
            python = environment.install(folder)
        except RexportError as error:
            refused[environment.name] = str(error)
        else:
            installed[environment.name] = python
            versions[environment.name] = environment.versions(python)
    return installed, versions, refused


def _make(
    setting: Setting, home: Path, installed: dict[str, Path], refused: dict[str, str], *, again: bool, limit: float
) -> Made:
    if setting.environment in refused:
        reason = refused[setting.environment]
        return Made(tool=setting.tool, setting=setting.name, precision=setting.precision, reason=reason)
    python = installed.get(setting.environment or "")
    return make(setting, home, python=python, again=again, limit=limit)


def _measure(
    contests: list[Contest], batches: list[int], screen_seconds: float, min_seconds: float, launches: int
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of every measurement as soon as it is done."""
    for contest in contests:
        for batch in batches:
            _say(f"{contest.network} on {contest.runtime}, batch {batch}: measuring {len(contest.entered)} files")
            screened = contest.screen(batch, screen_seconds)
            yield [{**row, "launch": None} for row in screened]
            for launch in range(launches):
                yield [{**row, "launch": launch} for row in contest.finals(screened, batch, min_seconds)]


def _needed(data: Path | None) -> Path:
    if data is None:
        raise typer.BadParameter("--network needs pictures: name their folder with --data.")
    return data.resolve()


def _is_named(setting: Setting, names: str, *, everything: bool) -> bool:
    tools = {name.lower() for name in _split(names)}
    return everything or setting.tool.lower() in tools or (setting.environment or OURS) in tools


def _split(text: str) -> list[str]:
    """Split at commas outside brackets, as in ``resnet50,resnext[depth=29,stages=3]``."""
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _in_words(result: Made) -> str:
    if result.file is None:
        return f"no file: {result.reason}"
    duration = f"{result.seconds:.1f} s" if result.seconds is not None else "? s"
    sqnr = "the same outputs" if result.sqnr_db is None else f"SQNR {result.sqnr_db:.1f} dB"
    return f"{duration}, {sqnr}{' (broken)' if result.is_broken else ''}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        typer.run(main)
    except RexportError as error:
        raise SystemExit(f"error: {error}") from None
