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
    threads: Annotated[
        str,
        typer.Option(
            "--threads",
            metavar="N,...",
            help="Threads, one number or several; 0 (default) leaves it to ONNX Runtime.",
            rich_help_panel=common.MEASURING,
        ),
    ] = "0",
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch",
            metavar="N,...",
            help="Batch sizes to time at, one number or several; also tells samples per second.",
            rich_help_panel=common.MEASURING,
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            metavar="S",
            min=0.1,
            help="The time for all timed runs together, of each batch and number of threads "
            "(default 5).",
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
    cuda_graphs: Annotated[
        bool,
        typer.Option(
            "--cuda-graphs",
            help="With --provider cuda: record a run once and replay it. Needs fixed shapes.",
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
    bootstrap interval. With several batch sizes or numbers of threads each combination is timed,
    and each model is told in two of MLPerf's scenarios: single-stream, the p90 latency at the
    smallest batch, and offline, the most samples per second.

    Examples:
        onnxpress bench model.onnx model.opt.onnx
        onnxpress bench model.onnx model.opt.onnx --session
        onnxpress bench model.onnx --profile --dim batch=8 --threads 1
        onnxpress bench model.onnx model.opt.onnx --batch 1,8,32 --threads 1,2
    """
    del debug
    volume = common.volume(quiet, verbose)
    dims = common.read_dims(dim)
    counts = common.read_numbers("--threads", threads, least=0)
    batches = common.read_numbers("--batch", batch, least=1) if batch is not None else ()
    with terminal.progress(volume != "quiet" and not json) as progress:
        from ..sweep import sweep

        found = sweep(
            models,
            provider=provider,
            batches=batches,
            threads=counts,
            dims=dims,
            data=data,
            seconds=seconds,
            operators=profile,
            memory=memory,
            session=session,
            cuda_graphs=cuda_graphs,
            seed=seed or 0,
            progress=progress,
        )
    report = found.points[0].report
    if batches or len(counts) > 1:
        if json:
            terminal.print_json(found.to_json())
        elif volume != "quiet":
            from .render_sweep import show_sweep

            show_sweep(terminal.stdout(), found, names_of([one.path for one in report.models]))
    elif json:
        terminal.print_json(report.to_json())
    elif volume != "quiet":
        show(terminal.stdout(), report, verbose=volume == "verbose")


def show(console: Console, report: BenchReport, *, verbose: bool = False) -> None:
    """Print latencies and verdicts, and profiles where there are any.

    ``verbose`` shows every operator of a profile, and the machine.
    """
    from rich.markup import escape

    from ..report_text import speedup_text, threads_text

    names = names_of([model.path for model in report.models])
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


def names_of(paths: list[str]) -> list[str]:
    """The file names where they tell the models apart, the whole paths otherwise."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else paths


def _latencies(report: BenchReport, names: list[str]) -> Table:
    from rich.markup import escape

    moved = any(model.transfer_ms is not None for model in report.models)
    heads = ["median, ms", "p10", "p90", "p99", "runs", "peak, MB"]
    table = terminal.columns("model", *heads, *(["transfers, ms"] if moved else []))
    table.columns[0].no_wrap = False
    table.columns[0].overflow = "fold"
    for name, model in zip(names, report.models, strict=True):
        found = model.latency
        quantiles = (found.median_ms, found.p10_ms, found.p90_ms, found.p99_ms)
        peak = "not measured" if model.peak_rss_mb is None else f"{model.peak_rss_mb:,.0f}"
        table.add_row(escape(name), *(f"{ms:.3f}" for ms in quantiles), f"{found.runs:,}", peak,
                      *([f"{model.transfer_ms or 0:.3f}"] if moved else []))  # fmt: skip
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
