"""The ``onnxpress`` command: its subcommands, and how errors become messages and exit codes.

Nothing heavy loads here: ``--help``, ``--version`` and a usage error answer without onnx_ir,
onnxruntime or onnxsim. Each command's module imports what it needs when it runs.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any

import typer

from ... import __version__
from ...backends.errors import OnnxpressError
from . import bench, bisect, compare, doctor, inspect, merge, optimize, passes, prune, quantize

INTERRUPTED = 130

app = typer.Typer(
    name="onnxpress",
    help="Make an ONNX model faster on your machine, checked against the original, and measured.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: onnxpress optimize model.onnx -o model.opt.onnx",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onnxpress {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    del version


app.command("optimize")(optimize.optimize)
app.command("quantize")(quantize.quantize)
app.command("prune")(prune.prune)
app.command("merge")(merge.merge)
app.command("inspect")(inspect.inspect)
app.command("compare")(compare.compare)
app.command("bench")(bench.bench)
app.command("bisect")(bisect.bisect)
app.command("passes")(passes.passes)
app.command("doctor")(doctor.doctor)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; messages go to standard error.

    Codes are those of :mod:`~onnxpress.backends.errors`: 0 for success, 130 when interrupted. A
    traceback is shown with ``--debug`` only; a failure that is no :class:`OnnxpressError` is a
    fault of onnxpress and says so.
    """
    debug, as_json = "--debug" in arguments, "--json" in arguments
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        code: Any = app(args=list(arguments), prog_name="onnxpress", standalone_mode=False)
    except OnnxpressError as error:
        if debug:
            traceback.print_exc()
        return _fail(error.message, error.hint, error.exit_code, type(error).__name__, as_json)
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback unless asked for
        return _unexpected(error, debug=debug, as_json=as_json)
    finally:
        signal.signal(signal.SIGTERM, previous)
    if code == INTERRUPTED:  # typer's answer to KeyboardInterrupt
        return _fail("interrupted", "nothing was written", INTERRUPTED, "Interrupted", as_json)
    return code if isinstance(code, int) else 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _unexpected(error: Exception, *, debug: bool, as_json: bool) -> int:
    show = getattr(error, "show", None)
    if callable(show) and hasattr(error, "exit_code"):
        # An error of typer's own: wrong usage, shown with the usage line.
        if as_json:
            return _fail(str(error.format_message()), "", error.exit_code, "UsageError", True)  # type: ignore[attr-defined]
        show()
        return int(error.exit_code)
    if debug:
        traceback.print_exc()
    return _fail(
        f"onnxpress itself failed: {type(error).__name__}: {error}",
        "run again with --debug and report the traceback",
        OnnxpressError.exit_code,
        type(error).__name__,
        as_json,
    )


def _fail(message: str, hint: str, code: int, kind: str, as_json: bool) -> int:
    if as_json:
        body = {"type": kind, "message": message, "hint": hint, "exit_code": code}
        sys.stdout.write(json.dumps({"error": body}) + "\n")
        return code
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]error:[/] {escape(message)}")
    if hint:
        console.print(f"[cyan]hint:[/] {escape(hint)}")
    return code
