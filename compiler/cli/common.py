"""What the commands share: the options they have in common, and the terminal they write to."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from ...backends.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from ..compile import Progress

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model to read.")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write.")]
TargetOption = Annotated[
    Literal["portable", "cpu", "cuda"] | None,
    typer.Option(
        "--target",
        help="Where the result runs: any runtime, or ONNX Runtime on a CPU or an NVIDIA GPU.",
        show_default="cpu",
    ),
]
Level = Annotated[
    int | None,
    typer.Option(
        "-O",
        "--level",
        min=0,
        max=3,
        help="0 nothing, 1 lossless with standard operators, 2 lossless for the target, "
        "3 as 2, settled by measuring.",
        show_default="2",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Samples: an .npz keyed by input name, a folder of .npy or .npz, or module:function.",
    ),
]
Dims = Annotated[
    list[str] | None,
    typer.Option("--dim", metavar="NAME=N", help="The size of a dynamic dimension; repeatable."),
]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report", metavar="FILE", help="Also write a report: .json, .md or .html; repeatable."
    ),
]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Check the answers against the original.",
        show_default="verify",
    ),
]
Time = Annotated[
    bool | None,
    typer.Option("--time/--no-time", help="Measure latency before and after.", show_default="time"),
]
Threads = Annotated[
    int, typer.Option("--threads", min=0, help="Threads for timing; 0 is ONNX Runtime's choice.")
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="The root of every random choice.", show_default="0"),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Allow writing over the input.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors and warnings.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also print what was declined, and why.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at the first pass that is wrong, with its error.")
]
SaveRepro = Annotated[
    Path | None,
    typer.Option(
        "--reproduce", metavar="DIR", help="Where a quarantined pass leaves a model that shows why."
    ),
]

Volume: TypeAlias = Literal["quiet", "normal", "verbose"]


def volume(quiet: bool, verbose: bool) -> Volume:
    """How much to print.

    Raises:
        UsageError: Both were asked for.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other")
    return "quiet" if quiet else "verbose" if verbose else "normal"


def read_dims(pairs: list[str] | None) -> dict[str, int]:
    """``["batch=4"]`` as ``{"batch": 4}``.

    Raises:
        UsageError: A pair is not ``name=N`` with a positive whole ``N``.
    """
    dims: dict[str, int] = {}
    for pair in pairs or ():
        name, _, size = pair.partition("=")
        if not name or not size.isdecimal() or int(size) < 1:
            raise UsageError(f"--dim {pair}: expected NAME=N with a positive whole number N")
        dims[name] = int(size)
    return dims


def read_weights(text: str | None) -> tuple[float, ...] | None:
    """``"0.7,0.3"`` as ``(0.7, 0.3)``.

    Raises:
        UsageError: Something between the commas is not a number.
    """
    if text is None:
        return None
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError as error:
        raise UsageError(f"--weights {text}: expected numbers with commas between") from error


def stdout() -> Console:
    """The terminal for results. Colour follows ``NO_COLOR`` and whether this is a terminal."""
    from rich.console import Console

    return Console(highlight=False)


def stderr() -> Console:
    """The terminal for progress and warnings."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Print ``value`` as the one object on standard output; NaN and infinity become null."""
    from ..write_report import finite

    sys.stdout.write(json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


@contextmanager
def progress_bar(show: bool) -> Iterator[Progress]:
    """Progress on a terminal, by stages; none when piped or not wanted.

    Yields a callable ``(stage, done, total)``; it costs next to nothing where nothing is shown.
    """
    console = stderr()
    if not show or not console.is_terminal:
        yield lambda _stage, _done, _total: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def advance(stage: str, done: int, total: int | None) -> None:
            bars.update(task, description=stage, completed=done, total=total)

        yield advance
