"""The commands that measure: each prints a table and writes one file of ``benchmarks/results``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from . import cli, compile_time, decisions, page, readme, shipped, startup, store, tables
from .apart import CallError, apart
from .corpus import CorpusError
from .printing import Limit, Results, latency_cells, say, table, there, wrote


def compile_time_suite(
    models: cli.Names = None,
    cache: cli.Cache = None,
    peers: Annotated[str, typer.Option(help="Simplifiers to time beside it.")] = "onnxsim,onnxslim",
    limit: Limit = 900,
    results: Results = store.RESULTS,
) -> None:
    """Time -O 1 and -O 2 without verification against other simplifiers, and how they grow."""
    names = [name for name in peers.split(",") if name]
    compilers = [*map(compile_time.ours, compile_time.LEVELS), *names]
    rows: list[compile_time.CompileTimes] = []
    shown = table("model", "nodes", *(f"{name} ms" for name in compilers))
    for model in there(cli.select(models, cache)):
        try:
            one = apart(compile_time.measure, model.name, model.path, names, limit=limit)
        except CallError as error:
            say(f"{model.name}: {error}")
            continue
        rows.append(one)
        cells = [
            f"{one.seconds[name] * 1000:.1f}" if name in one.seconds else "fails"
            for name in compilers
        ]
        shown.add_row(one.model, str(one.nodes), *cells)
        say(f"{one.model}: {', '.join(cells)}")
        for name, reason in one.failed.items():
            say(f"  {name} fails: {reason}")
    console = Console(highlight=False)
    console.print(shown)
    levels = {}
    for level in compile_time.LEVELS:
        ratios = {name: compile_time.ratio(rows, level, name) for name in names}
        growth = compile_time.growth(level)
        levels[str(level)] = {
            "ratios": ratios,
            "growth": asdict(growth) | {"over_linear": growth.over_linear},
        }
        for name, value in ratios.items():
            if value is not None:
                console.print(f"geometric mean of -O {level} / {name}: {value:.2f}")
        (small, large), (first, second) = growth.nodes, growth.seconds
        console.print(
            f"-O {level}: {small:,} nodes {first * 1000:.0f} ms, {large:,} nodes "
            f"{second * 1000:.0f} ms: {growth.over_linear:.2f} times linear"
        )
    body = {"levels": levels, "rows": [asdict(one) for one in rows]}
    wrote(store.save("compile-time", body, packages=names, folder=results))


def shipped_suite(results: Results = store.RESULTS) -> None:
    """Optimize, quantize, prune and merge the models that ship: latency, size, accuracy."""
    shown = table("net", "variant", "speedup", "95% interval", "bytes", "MACs", "top-1", "answers")

    def step(row: dict[str, Any]) -> None:
        cells = [
            row["net"],
            row["variant"],
            *latency_cells(row["latency"]),
            *(f"{row[key][0]:,} → {row[key][1]:,}" for key in ("bytes", "macs")),
            f"{row['top1'][0]:.2%} → {row['top1'][1]:.2%}",
            row["verified"],
        ]
        shown.add_row(*cells)
        say(" ".join(cells))

    rows = shipped.measure_all(step)
    Console(width=140).print(shown)
    wrote(store.save("shipped", {"rows": rows}, folder=results))


def decisions_suite(
    models: Annotated[
        str, typer.Option(help="Of the recognizer and the voice detectors, comma separated.")
    ] = ",".join([decisions.READER, *decisions.DETECTORS]),
    cache: cli.Cache = None,
    levels: Annotated[str, typer.Option(help="Levels, comma separated.")] = "1,2,3",
    results: Results = store.RESULTS,
) -> None:
    """Read rendered lines and tell speech from silence: the same decisions at every level?"""
    rows = []
    for model in there(cli.select([models], cache)):
        for level in map(int, levels.split(",")):
            one = decisions.compare(model.name, level, cache)
            rows.append(asdict(one))
            right = "" if one.right is None else f", {one.right} of the original's are right"
            Console(highlight=False, soft_wrap=True).print(
                f"{one.model} -O {one.level}: the same in {one.same:,} of {one.count:,} "
                f"{one.what}{right}"
            )
    wrote(store.save("decisions", {"rows": rows}, folder=results))


def write_readme(
    keep: Annotated[
        bool, typer.Option("--keep-transcript", help="Do not run the command of the README again.")
    ] = False,
) -> None:
    """Run the README's command and write its transcript and the tables from the results."""
    if not keep:
        wrote(store.save("transcript", readme.capture()))
    for one in readme.PAGES:
        one.write_text(readme.fill(one.read_text(encoding="utf-8")), encoding="utf-8")
        wrote(one)


def report(
    out: Annotated[
        Path | None, typer.Option(help="Folder of report.md and report.html. Default: --results.")
    ] = None,
    results: Results = store.RESULTS,
) -> None:
    """Write all results as Markdown tables and as one HTML page with plots."""
    found = {}
    for suite in page.SUITES:
        try:
            found[suite] = store.load(suite, results)
        except CorpusError as error:
            say(f"{error.message}: {error.hint}")
    folder = out or results
    folder.mkdir(parents=True, exist_ok=True)
    files = {"report.html": page.as_html(found), "report.md": tables.everything(found)}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        wrote(folder / name)


def startup_suite(
    runs: Annotated[int, typer.Option(help="Processes of each kind to time.")] = 15,
) -> None:
    """Time `onnxpress --help` against the --help of the smallest typer script."""
    found = startup.measure(runs)
    Console(highlight=False).print(
        f"onnxpress --help {found.onnxpress * 1000:.0f} ms, the smallest typer script "
        f"{found.smallest * 1000:.0f} ms: {found.ratio:.2f} times"
    )
