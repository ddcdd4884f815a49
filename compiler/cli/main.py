"""The ``onnxpress`` command: its subcommands, and how errors become messages and exit codes.

Nothing heavy loads here: ``--help``, ``--version`` and a usage error answer without onnx_ir,
onnxruntime or onnxsim. Each command's module imports what it needs when it runs.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Annotated, Any

import typer

from ... import __version__
from ...backends.errors import OnnxpressError, UsageError
from . import bench, bisect, compare, doctor, inspect, merge, optimize, passes, prune, quantize
from .help import Command, Group
from .job import ARGUMENTS

INTERRUPTED = 130

app = typer.Typer(
    name="onnxpress",
    cls=Group,
    help="Make an ONNX model faster on your machine, checked against the original, and measured.",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`onnxpress COMMAND --help` shows a command's options, with examples.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onnxpress {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    del version
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Make a model better": (optimize.optimize, quantize.quantize, prune.prune, merge.merge),
    "Look at models": (inspect.inspect, compare.compare, bench.bench, bisect.bisect),
    "Look at onnxpress": (passes.passes, doctor.doctor),
}
for _panel, _functions in _COMMANDS.items():
    for _function in _functions:
        app.command(_function.__name__, cls=Command, rich_help_panel=_panel)(_function)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; messages go to standard error.

    Codes are those of :mod:`~onnxpress.backends.errors`: 0 for success, 130 when interrupted. A
    traceback is shown with ``--debug`` only; a failure that is no :class:`OnnxpressError` is a
    fault of onnxpress and says so.
    """
    debug, as_json = "--debug" in arguments, "--json" in arguments
    previous = signal.signal(signal.SIGTERM, _interrupt)
    called = ARGUMENTS.set(tuple(arguments))
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
        ARGUMENTS.reset(called)
    if code == INTERRUPTED:  # typer's answer to KeyboardInterrupt
        return _fail("interrupted", "", INTERRUPTED, "Interrupted", as_json)
    return code if isinstance(code, int) else 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _unexpected(error: Exception, *, debug: bool, as_json: bool) -> int:
    if hasattr(error, "format_message"):  # an error of typer's own: wrong usage
        return _misused(error, as_json)
    if debug:
        traceback.print_exc()
    return _fail(
        f"onnxpress itself failed: {type(error).__name__}: {error}",
        "run again with --debug and report the traceback",
        OnnxpressError.exit_code,
        type(error).__name__,
        as_json,
    )


def _misused(error: Any, as_json: bool) -> int:
    # What validates types puts its own error's name first.
    message = str(error.format_message()).replace("Value error, ", "").rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "onnxpress"
    hint = f"`{command} --help` shows what there is"
    return _fail(message, hint, UsageError.exit_code, "UsageError", as_json)


def _fail(message: str, hint: str, code: int, kind: str, as_json: bool) -> int:
    if as_json:
        body = {"type": kind, "message": message, "hint": hint, "exit_code": code}
        sys.stdout.write(json.dumps({"error": body}) + "\n")
        return code
    from . import terminal

    console = terminal.stderr()
    terminal.message(console, "error", "bold red", message)
    if hint:
        # Left to the terminal to wrap, as it may be a command to copy.
        console.print("[cyan]hint:[/] ", end="")
        console.print(hint, markup=False, soft_wrap=True)
    return code
