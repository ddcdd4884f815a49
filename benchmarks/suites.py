"""The commands that measure: each prints a table and writes one file of ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from . import cli, compile_time, lossless, readme, shipped, startup, store
from .apart import CallError, apart
from .corpus import CorpusModel

Limit = Annotated[float, typer.Option(help="Seconds that one model may take.")]
Results = Annotated[Path, typer.Option(help="Folder to write the results to.")]


def compile_time_suite(
    models: cli.Names = None,
    cache: cli.Cache = None,
    peers: Annotated[str, typer.Option(help="Simplifiers to time beside it.")] = "onnxsim,onnxslim",
    limit: Limit = 900,
    results: Results = store.RESULTS,
) -> None:
    """Time -O 1 without verification against other simplifiers, and how it grows."""
    names = [name for name in peers.split(",") if name]
    rows: list[compile_time.CompileTimes] = []
    table = _table("model", "nodes", *(f"{name} ms" for name in (compile_time.OURS, *names)))
    for model in _there(cli.select(models, cache)):
        try:
            one = apart(compile_time.measure, model.name, model.path, names, limit=limit)
        except CallError as error:
            _say(f"{model.name}: {error}")
            continue
        rows.append(one)
        cells = [
            f"{one.seconds[name] * 1000:.1f}" if name in one.seconds else "fails"
            for name in (compile_time.OURS, *names)
        ]
        table.add_row(one.model, str(one.nodes), *cells)
        _say(f"{one.model}: {', '.join(cells)}")
        for name, reason in one.failed.items():
            _say(f"  {name} fails: {reason}")
    growth = compile_time.growth()
    ratios = {name: compile_time.ratio(rows, name) for name in names}
    console = Console()
    console.print(table)
    for name, value in ratios.items():
        if value is not None:
            console.print(f"geometric mean of onnxpress / {name}: {value:.2f}")
    (small, large), (first, second) = growth.nodes, growth.seconds
    console.print(
        f"{small:,} nodes {first * 1000:.0f} ms, {large:,} nodes {second * 1000:.0f} ms: "
        f"{growth.over_linear:.2f} times linear"
    )
    body = {
        "ratios": ratios,
        "growth": asdict(growth) | {"over_linear": growth.over_linear},
        "rows": [asdict(one) for one in rows],
    }
    _wrote(store.save("compile-time", body, packages=names, folder=results))


def lossless_suite(
    models: cli.Names = None,
    cache: cli.Cache = None,
    limit: Limit = 900,
    results: Results = store.RESULTS,
) -> None:
    """Rewrite every model at -O 1 and -O 2, check the answers, and time both."""
    rows: list[dict[str, Any]] = []
    table = _table("model", "level", "nodes", "speedup", "95% interval", "answers", "undone")
    for model in _there(cli.select(models, cache)):
        for level in lossless.LEVELS:
            row = lossless.measure(model.name, level, limit=limit, cache=cache)
            rows.append(row)
            cells = [model.name, str(level), *_lossless_cells(row)]
            table.add_row(*cells)
            _say(" ".join(cells))
    Console(width=140).print(table)
    _wrote(store.save("lossless", {"rows": rows}, folder=results))


def _lossless_cells(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return ["", "", "", row["error"], ""]
    before, after = row["nodes"]
    return [
        f"{before} → {after}",
        *_latency_cells(row["latency"]),
        row["verified"] + (f": {row['reason']}" if row["reason"] else ""),
        ", ".join(row["quarantined"]),
    ]


def _latency_cells(latency: dict[str, Any]) -> tuple[str, str]:
    if latency["status"] != "measured":
        return "", latency["reason"]
    low, high = latency["ci95"]
    return f"{latency['speedup']:.2f}x", f"{low:.2f} to {high:.2f}"


def shipped_suite(results: Results = store.RESULTS) -> None:
    """Optimize, quantize, prune and merge the models that ship: latency, size, accuracy."""
    table = _table("net", "variant", "speedup", "95% interval", "bytes", "MACs", "top-1", "answers")

    def step(row: dict[str, Any]) -> None:
        cells = [
            row["net"],
            row["variant"],
            *_latency_cells(row["latency"]),
            *(f"{row[key][0]:,} → {row[key][1]:,}" for key in ("bytes", "macs")),
            f"{row['top1'][0]:.2%} → {row['top1'][1]:.2%}",
            row["verified"],
        ]
        table.add_row(*cells)
        _say(" ".join(cells))

    rows = shipped.measure_all(step)
    Console(width=140).print(table)
    _wrote(store.save("shipped", {"rows": rows}, folder=results))


def write_readme(
    keep: Annotated[
        bool, typer.Option("--keep-transcript", help="Do not run the command of the README again.")
    ] = False,
) -> None:
    """Run the README's command and write its transcript and the tables from the results."""
    if not keep:
        _wrote(store.save("transcript", readme.capture()))
    for page in readme.PAGES:
        page.write_text(readme.fill(page.read_text(encoding="utf-8")), encoding="utf-8")
        _wrote(page)


def _there(models: Iterable[CorpusModel]) -> list[CorpusModel]:
    found = []
    for model in models:
        if model.is_fetched:
            found.append(model)
        else:
            _say(f"{model.name}: not there, get it with {model.get_it}")
    return found


def _table(*heads: str) -> Table:
    first, *rest = heads
    numbers = (Column(head, justify="right") for head in rest)
    return Table(Column(first, no_wrap=True), *numbers, box=None)


def _say(line: str) -> None:
    """Progress, on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False)


def _wrote(path: Path) -> None:
    _say(f"wrote {path}")


def startup_suite(
    runs: Annotated[int, typer.Option(help="Processes of each kind to time.")] = 15,
) -> None:
    """Time `onnxpress --help` against the --help of the smallest typer script."""
    found = startup.measure(runs)
    Console(highlight=False).print(
        f"onnxpress --help {found.onnxpress * 1000:.0f} ms, the smallest typer script "
        f"{found.smallest * 1000:.0f} ms: {found.ratio:.2f} times"
    )
