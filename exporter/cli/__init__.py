"""The ``rexport`` command: one file per command, and nothing heavy imported before a command runs."""

from __future__ import annotations

import re
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from rexport._errors import RexportError
from rexport.cli import (
    bench,
    bundle,
    deploy,
    devices,
    doctor,
    engine,
    eval,  # noqa: A004
    fuse,
    inspect,
    models,
    onnx,
    predict,
    quantize,
    quickstart,
    train,
    tune,
)
from rexport.cli._console import fail
from rexport.cli._options import ADVANCED

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["app", "main"]


class _Interrupt(KeyboardInterrupt):
    """What a signal raises.

    Where ``KeyboardInterrupt`` itself leaves an ``exec`` of text, and dataclasses execute one for every class, CPython
    remembers it and at the end dies of SIGINT, whatever the exit code was to be.
    """


class _Stop:
    """Turns Ctrl-C and SIGTERM into a clean end.

    The signal raises a ``KeyboardInterrupt``, so that whatever is half done is cleaned up on the way out. Libraries
    catch it here and there and raise errors of their own; so that a signal came is remembered.
    """

    signum: int | None = None

    def install(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._handle)

    def explain(self) -> int:
        """Print what the stop means and return the exit code."""
        return fail("interrupted; files that were being written are as they were before.", 128 + (self.signum or 0))

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.signum = signum
        raise _Interrupt


_stop = _Stop()
_UsageError: Any = typer.BadParameter.__base__  # click's, which Typer has a copy of
# what other tools call them
_ELSEWHERE = {
    **dict.fromkeys(("convert", "export"), "onnx"),
    **dict.fromkeys(("benchmark", "time", "profile"), "bench"),
    **dict.fromkeys(("evaluate", "validate", "val", "test"), "eval"),
    **dict.fromkeys(("classify", "infer", "run"), "predict"),
    **dict.fromkeys(("build", "compile"), "engine"),
    **dict.fromkeys(("optimize", "simplify"), "fuse"),
    **dict.fromkeys(("install", "push"), "deploy"),
    "calibrate": "quantize",
    "autotune": "tune",
    "list": "models",
    "info": "inspect",
    "pack": "bundle",
    **{name: f"devices {name}" for name in ("status", "rollback")},
}


# what stands for a value in the help, by the names that click has for types
_METAVARS = {
    **dict.fromkeys(("path", "list[Path]"), "PATH"),
    **dict.fromkeys(("int", "int range"), "N"),
    **dict.fromkeys(("float", "float range"), "X"),
    **dict.fromkeys(("str", "list[str]"), "TEXT"),
}


class _Command(TyperCommand):
    """A command whose help has its options in groups, and examples at the end, without loading rich."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as click does, which takes the last of several ``--weights`` without a word."""
        _, _, parameters = self.make_parser(ctx).parse_args(args=[*args])
        if [parameter.name for parameter in parameters].count("weights") > 1:
            ctx.fail("--weights is given twice; pass one file, or those of an ensemble as a.pt+b.pt")
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            label, text = record
            text = re.sub(r"\[default: \((.*?)\)(?=[;\]])", r"[default: \1", text)  # click's, around words
            text = re.sub(r" *\[x>=[\d.]+\]|; x>=[\d.]+(?=\])", "", text)
            if parameter.param_type_name == "argument":
                groups["Arguments"].append((re.sub(" <.*>", "", label), text))
            else:
                label = re.sub("<(.*)>", lambda match: _METAVARS.get(match[1], match[1]), label)
                panel = getattr(parameter, "rich_help_panel", None) or "Options"
                groups.setdefault(panel, []).append((label, text))
        for name, records in sorted(groups.items(), key=lambda group: group[0] == ADVANCED):
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        if self.epilog:
            with formatter.section("Examples"):
                for example in self.epilog.splitlines():
                    formatter.write(_continued(example, formatter.width))


def _continued(example: str, width: int) -> str:
    """Return a command line in lines that a shell takes for one, broken before options."""
    first, *options = re.split(r" (?=--?\w)", example)
    lines = [f"  {first}"]
    for option in options:
        if len(f"{lines[-1]} {option} \\") > width:
            lines.append("     ")
        lines[-1] += f" {option}"
    return " \\\n".join(lines) + "\n"


class _Group(TyperGroup):
    def main(
        self,
        args: Any = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Report what click finds wrong as every other error is reported."""

        def main() -> Any:
            return super(_Group, self).main(args, prog_name, complete_var, False, windows_expand_args, **extra)

        if not standalone_mode:
            return main()
        try:
            sys.exit(main())
        except _UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
                sys.exit(error.exit_code)
            command = error.ctx.command_path if error.ctx else "rexport"
            message = error.format_message().rstrip(".")
            stop = "" if message.endswith("?") else "."
            sys.exit(fail(f"{message}{stop} See `{command} --help`.", error.exit_code))
        except typer.Abort:
            sys.exit(fail("aborted.", 1))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in _ELSEWHERE and ctx.parent is None:
            ctx.fail(f"There is no command {args[0]!r}: `rexport {_ELSEWHERE[args[0]]}` does that")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BaseException as error:
            if _stop.signum is not None:
                raise typer.Exit(_stop.explain()) from error
            if isinstance(error, RexportError):
                raise typer.Exit(fail(str(error), error.exit_code)) from error
            raise


app = typer.Typer(
    name="rexport",
    cls=_Group,
    help="Takes a residual network from PyTorch to the device: export, prove, fuse, quantize, measure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, a tenth of a second sooner
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command, in_short in (
    (quickstart.quickstart, "The whole way on real handwritten digits, in a minute."),
    (models.models, "The networks that can be built, and their cost."),
    (train.train, "Weights from labelled images; resumable."),
    (onnx.onnx, "Export a network to ONNX, fused and proven equal."),
    (fuse.fuse, "Fuse any ONNX file, and say what was refused and why."),
    (quantize.quantize, "An INT8 file from a float one and some images."),
    (eval.eval, "Accuracy, and agreement with another model."),
    (predict.predict, "The classes of pictures, with probabilities."),
    (engine.engine, "Build a TensorRT engine, checked layer by layer; for RTX without a GPU."),
    (inspect.inspect, "What a file is, layer by layer, and where it comes from."),
    (bench.bench, "Measure throughput and latency, model against model."),
    (tune.tune, "Find the fastest runtime, batch and threads, and save the settings."),
    (bundle.bundle, "Pack a model into a signed bundle for devices, or for Triton."),
    (deploy.deploy, "Install a signed bundle on devices over SSH; write it for Ansible or Mender."),
    (doctor.doctor, "Show what works on this machine, and what to type for the rest."),
):
    examples = "\n".join(getattr(sys.modules[command.__module__], "EXAMPLES", ()))
    app.command(command.__name__, cls=_Command, short_help=in_short, epilog=examples or None)(command)
for subcommand in devices.devices.registered_commands:
    assert subcommand.callback is not None
    subcommand.cls, subcommand.epilog = _Command, "\n".join(devices.EXAMPLES[subcommand.callback.__name__])
app.add_typer(devices.devices, name="devices")


def _print_version(asked: bool) -> None:
    if asked:
        from rexport._version import __version__

        typer.echo(f"rexport {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command line; the exit codes are those of ``rexport._errors``, and 128 + n after signal n."""
    _stop.install()
    try:
        app()
    except KeyboardInterrupt:  # before a command began, or after it ended
        sys.exit(_stop.explain())
