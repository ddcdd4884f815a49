"""``onnxpress bench``: how fast models are, and whether the difference is real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import common

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..bench import BenchReport, ModelBench

_STYLES = {"faster": "green", "slower": "bold red"}
_OPERATORS_SHOWN = 15


def bench(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="The models; the first is what others are against."
        ),
    ],
    provider: Annotated[
        Literal["cpu", "cuda"], typer.Option("--provider", help="Where to run them.")
    ] = "cpu",
    threads: common.Threads = 0,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also show where each model's time goes.")
    ] = False,
    data: common.DataOption = None,
    dim: common.Dims = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="Time for all timed runs together.")
    ] = 5.0,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Measure each model's peak memory.")
    ] = True,
    seed: common.Seed = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Time MODEL... on the same inputs, in turns, and say which differences are significant.

    Each model runs in ONNX Runtime's default session. Latencies are medians after a warm-up; the
    speedup is the first model's median over the other's, with a 95% bootstrap interval.

    [bold]Examples[/]

    onnxpress bench model.onnx model.opt.onnx

    onnxpress bench model.onnx --profile --dim batch=8 --threads 1
    """
    del debug
    dims = common.read_dims(dim)
    from ..bench import bench as run

    with common.progress_bar(not quiet and not json) as progress:
        report = run(
            models,
            provider=provider,
            threads=threads,
            dims=dims,
            data=data,
            seconds=seconds,
            operators=profile,
            memory=memory,
            seed=seed or 0,
            progress=progress,
        )
    if json:
        common.print_json(report.to_json())
    elif not quiet:
        show(common.stdout(), report)


def show(console: Console, report: BenchReport) -> None:
    """Print the latencies and the verdicts, and the profiles where there are any."""
    from rich.markup import escape

    names = _names([model.path for model in report.models])
    console.print(_latencies(report, names))
    for name, pair in zip(names[1:], report.pairs, strict=True):
        style = _STYLES.get(pair.verdict, "yellow")
        low, high = pair.ci95
        console.print(
            f"{escape(name)} against {escape(names[0])}: [{style}]{pair.verdict}[/], "
            f"{pair.speedup:.2f}x (95% interval {low:.2f} to {high:.2f})",
            soft_wrap=True,
        )
    for name, model in zip(names, report.models, strict=True):
        if model.operators:
            console.print(f"\n[bold]{escape(name)}[/], per run", soft_wrap=True)
            console.print(_operators(model))
    threads = f"{report.threads} threads" if report.threads else "ONNX Runtime's own thread count"
    shapes = ", ".join(f"{name} {shape}" for name, shape in report.feeds.items())
    console.print(f"\n{report.provider}, {threads}; {escape(shapes)}", style="dim", soft_wrap=True)


def _names(paths: list[str]) -> list[str]:
    """The file names where they tell the models apart, the whole paths otherwise."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else paths


def _latencies(report: BenchReport, names: list[str]) -> Table:
    from rich.markup import escape

    table = _table("model", "median ms", "p10", "p90", "p99", "runs", "peak MB")
    for name, model in zip(names, report.models, strict=True):
        found = model.latency
        quantiles = (found.median_ms, found.p10_ms, found.p90_ms, found.p99_ms)
        peak = "not measured" if model.peak_rss_mb is None else f"{model.peak_rss_mb:.0f}"
        table.add_row(escape(name), *(f"{ms:.3f}" for ms in quantiles), str(found.runs), peak)
    return table


def _operators(model: ModelBench) -> Table:
    from rich.markup import escape

    table = _table("operator", "calls", "time", "share")
    shown = model.operators[:_OPERATORS_SHOWN]
    for row in shown:
        on = "" if row.provider == "CPUExecutionProvider" else f" ({row.provider})"
        name = escape(row.op_type + on)
        table.add_row(name, str(row.calls), f"{row.total_ms:.3f} ms", f"{row.share:.1%}")
    if rest := model.operators[_OPERATORS_SHOWN:]:
        total, share = sum(row.total_ms for row in rest), sum(row.share for row in rest)
        calls = str(sum(row.calls for row in rest))
        table.add_row(f"{len(rest)} more", calls, f"{total:.3f} ms", f"{share:.1%}")
    return table


def _table(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
