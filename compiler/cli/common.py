"""The options that commands have in common, and how their values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...backends.errors import UsageError
from .terminal import Volume

INPUTS = "Inputs"
REWRITING = "Rewriting"
MEASURING = "Checking and timing"
OUTPUT = "Output"

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model to read.")]
SourceModel = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="The model to read: ONNX, or with the frameworks installed a .pt2, a .keras or a "
        "SavedModel's folder.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Where to write the result.",
        rich_help_panel="Arguments",
    ),
]


def _targets(typed: str) -> list[str]:
    known = ("portable", "cpu", "cuda", "cpu:portable")
    return [name for name in known if name.startswith(typed)]


TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="portable|cpu|cuda",
        autocompletion=_targets,
        help="Where the result will run: on any runtime, or in ONNX Runtime on this CPU (default) "
        "or an NVIDIA GPU. cpu:portable is any CPU, cpu:haswell, cpu:zen4 and the like another.",
        rich_help_panel=REWRITING,
    ),
]
Level = Annotated[
    int | None,
    typer.Option(
        "-O",
        "--level",
        metavar="0..3",
        min=0,
        max=3,
        help="How far to go: 0 not at all, 1 lossless with standard operators, 2 lossless for the "
        "target (default), 3 as 2, and measure which rewrites and session options pay.",
        rich_help_panel=REWRITING,
    ),
]
PassesOption = Annotated[
    str | None,
    typer.Option(
        "--passes",
        metavar="TEXT",
        help='A pipeline of your own instead of a level\'s, such as "fold-batch-norm,cleanup"; '
        "`onnxpress passes` lists what there is.",
        rich_help_panel=REWRITING,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Samples: an .npz keyed by input name, a folder of .npy or .npz, or module:function.",
        rich_help_panel=INPUTS,
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        metavar="X",
        min=0,
        help="How much worse answers may get by quantization, by --metric, on samples held out; "
        "layers that cost too much stay in float. `onnxpress prune` finds how much may go.",
        rich_help_panel=REWRITING,
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="M",
        help="sqnr, cosine, top1-agreement (default), accuracy, or module:function.",
        rich_help_panel=REWRITING,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="An .npy with one whole number for each sample, for --metric accuracy.",
        rich_help_panel=INPUTS,
    ),
]
Dims = Annotated[
    list[str] | None,
    typer.Option(
        "--dim",
        metavar="NAME=N",
        help="The size of a dynamic dimension; repeatable.",
        rich_help_panel=INPUTS,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        help="The root of every random choice (default 0).",
        rich_help_panel=INPUTS,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Stop with an error at the first pass that is wrong, instead of undoing it.",
        rich_help_panel=MEASURING,
    ),
]
Reproduce = Annotated[
    Path | None,
    typer.Option(
        "--reproduce",
        metavar="DIR",
        help="A folder in which each pass that is undone leaves the model it was wrong on.",
        rich_help_panel=MEASURING,
    ),
]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Check the answers against the original after every pass (default).",
        rich_help_panel=MEASURING,
    ),
]
Time = Annotated[
    bool | None,
    typer.Option(
        "--time/--no-time",
        help="Measure the latency before and after, and withdraw what makes it worse (default).",
        rich_help_panel=MEASURING,
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        "--threads",
        metavar="N",
        min=0,
        help="Threads for timing; 0 (default) leaves it to ONNX Runtime.",
        rich_help_panel=MEASURING,
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--budget",
        metavar="S",
        min=0,
        help="Seconds for settling by measuring which rewrites pay and which session options are "
        "fastest; 120 at -O 3, and nothing is settled otherwise.",
        rich_help_panel=MEASURING,
    ),
]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Also write a report: .json, .md or .html; repeatable.",
        rich_help_panel=OUTPUT,
    ),
]
Provenance = Annotated[
    bool,
    typer.Option(
        "--provenance",
        help="Write into the result's metadata what was done, and the SHA-256 of the input.",
        rich_help_panel=OUTPUT,
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Allow writing over the input.", rich_help_panel=OUTPUT),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object on standard output, and nothing else there.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print warnings and errors only.", rich_help_panel=OUTPUT),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=OUTPUT),
]


def verbose(also: str) -> Any:
    """The option ``--verbose`` of a command that then prints ``also`` as well."""
    return typer.Option("--verbose", "-v", help=f"Also print {also}.", rich_help_panel=OUTPUT)


Verbose = Annotated[bool, verbose("what was declined and why, and what passes report")]


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


def read_numbers(option: str, text: str, *, least: int) -> tuple[int, ...]:
    """``"1,8"`` as ``(1, 8)``.

    Raises:
        UsageError: Something between the commas is no whole number, or less than ``least``.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= least for part in parts):
        raise UsageError(
            f"{option} {text}: expected whole numbers from {least} on, with commas between"
        )
    return tuple(dict.fromkeys(map(int, parts)))


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


def read_macs(fraction: float | None, option: str = "--macs") -> float | None:
    """``--macs`` or another such option, if it is a fraction.

    Raises:
        UsageError: It is not above 0 and at most 1.
    """
    if fraction is not None and not 0 < fraction <= 1:
        raise UsageError(f"{option} {fraction:g}: expected a fraction above 0 and at most 1")
    return fraction
