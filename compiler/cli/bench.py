"""``onnxpress bench``: how fast models are, and whether the difference is real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from . import common, terminal
from .help import one_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..bench import BenchReport, ModelBench

Provider: TypeAlias = Literal["cpu", "cuda"]

_STYLES = {"faster": "green", "slower": "bold red"}
_OPERATORS_SHOWN = 15


def bench(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="The models; each is compared with the first."),
    ],
    provider: Annotated[
        Provider,
        typer.Option(
            "--provider",
            metavar=one_of(Provider),
            help="Where to run them (default cpu).",
            rich_help_panel=common.MEASURING,
        ),
    ] = "cpu",
    threads: common.Threads = 0,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            metavar="S",
            min=0.1,
            help="The time for all timed runs together (default 5).",
            rich_help_panel=common.MEASURING,
        ),
    ] = 5.0,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Also show in which operators each model's time goes.",
            rich_help_panel=common.MEASURING,
        ),
    ] = False,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory/--no-memory",
            help="Measure each model's peak memory (default).",
            rich_help_panel=common.MEASURING,
        ),
    ] = True,
    session: Annotated[
        bool,
        typer.Option(
            "--session",
            help="Also time each model with the options in its session file.",
            rich_help_panel=common.MEASURING,
        ),
    ] = False,
    data: common.DataOption = None,
    dim: common.Dims = None,
    seed: common.Seed = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: Annotated[bool, common.verbose("all operators of a profile, and the machine")] = False,
    debug: common.Debug = False,
) -> None:
    """Time models against each other, and say which differences are real.

    They take turns on the same inputs, each in ONNX Runtime's default session. Latencies are
    medians after a warm-up; a speedup is the first model's median over the other's, with a 95%
    bootstrap interval.

    Examples:
        onnxpress bench model.onnx model.opt.onnx
        onnxpress bench model.onnx model.opt.onnx --session
        onnxpress bench model.onnx --profile --dim batch=8 --threads 1
    """
    del debug
    volume = common.volume(quiet, verbose)
    dims = common.read_dims(dim)
    with terminal.progress(volume != "quiet" and not json) as progress:
        from ..bench import bench as run

        report = run(
            models,
            provider=provider,
            threads=threads,
            dims=dims,
            data=data,
            seconds=seconds,
            operators=profile,
            memory=memory,
            session=session,
            seed=seed or 0,
            progress=progress,
        )
    if json:
        terminal.print_json(report.to_json())
    elif volume != "quiet":
        show(terminal.stdout(), report, verbose=volume == "verbose")


def show(console: Console, report: BenchReport, *, verbose: bool = False) -> None:
    """Print latencies and verdicts, and profiles where there are any.

    ``verbose`` shows every operator of a profile, and the machine.
    """
    from rich.markup import escape

    from ..report_text import speedup_text, threads_text

    names = _names([model.path for model in report.models])
    console.print(_latencies(report, names))
    for name, pair in zip(names[1:], report.pairs, strict=True):
        style = _STYLES.get(pair.verdict, "yellow")
        ratio = speedup_text(pair.speedup, pair.ci95)
        both = f"{escape(name)} against {escape(names[0])}"
        console.print(f"{both}: [{style}]{pair.verdict}[/], {ratio}")
    for name, model in zip(names, report.models, strict=True):
        if model.operators:
            console.print(f"\n[bold]{escape(name)}[/], per run")
            console.print(_operators(model, len(model.operators) if verbose else _OPERATORS_SHOWN))
    shapes = [f"{name} {shape}" for name, shape in report.feeds.items()]
    conditions = [report.provider, threads_text(report.threads), *shapes]
    if verbose:
        conditions.append(report.environment["cpu"]["model"])
    console.print(f"\n{escape(', '.join(conditions))}", style="dim")


def _names(paths: list[str]) -> list[str]:
    """The file names where they tell the models apart, the whole paths otherwise."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else paths


def _latencies(report: BenchReport, names: list[str]) -> Table:
    from rich.markup import escape

    table = terminal.columns("model", "median, ms", "p10", "p90", "p99", "runs", "peak, MB")
    table.columns[0].no_wrap = False
    table.columns[0].overflow = "fold"
    for name, model in zip(names, report.models, strict=True):
        found = model.latency
        quantiles = (found.median_ms, found.p10_ms, found.p90_ms, found.p99_ms)
        peak = "not measured" if model.peak_rss_mb is None else f"{model.peak_rss_mb:,.0f}"
        table.add_row(escape(name), *(f"{ms:.3f}" for ms in quantiles), f"{found.runs:,}", peak)
    return table


def _operators(model: ModelBench, most: int) -> Table:
    from rich.markup import escape

    table = terminal.columns("operator", "calls", "time, ms", "share")
    for row in model.operators[:most]:
        on = "" if row.provider == "CPUExecutionProvider" else f" ({row.provider})"
        name = escape(row.op_type + on)
        table.add_row(name, str(row.calls), f"{row.total_ms:.3f}", f"{row.share:.1%}")
    if rest := model.operators[most:]:
        total, share = sum(row.total_ms for row in rest), sum(row.share for row in rest)
        calls = str(sum(row.calls for row in rest))
        table.add_row(f"{len(rest)} more", calls, f"{total:.3f}", f"{share:.1%}")
    return table
