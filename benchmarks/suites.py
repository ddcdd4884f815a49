"""The commands that measure: each prints a table and writes one file of ``benchmarks/results``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from . import cli, compile_time, decisions, page, readme, shipped, startup, store, tables
from .apart import row_apart
from .corpus import CorpusError, load_corpus
from .journal import Journal
from .printing import Limit, Results, Resume, Update, latency_cells, say, table, there, wrote


def compile_time_suite(
    models: cli.Names = None,
    cache: cli.Cache = None,
    peers: Annotated[str, typer.Option(help="Simplifiers to time beside it.")] = "onnxsim,onnxslim",
    resume: Resume = False,
    update: Update = False,
    limit: Limit = 900,
    results: Results = store.RESULTS,
) -> None:
    """Time -O 1 and -O 2 without verification against other simplifiers, and how they grow."""
    names = [name for name in peers.split(",") if name]
    compilers = [*map(compile_time.ours, compile_time.LEVELS), *names]
    keys = {"rows": ("model",), "growth": ("level",)}
    journal = Journal(
        "compile-time", keys, results, resume=resume, update=update, packages=names, order=_order
    )
    shown = table("model", "nodes", *(f"{name} ms" for name in compilers))
    for model in there(cli.select(models, cache)):
        key: dict[str, Any] = {"model": model.name}
        asked = (model.name, model.path, names)
        row = journal.measure("rows", key, row_apart, compile_time.row, *asked, limit=limit)
        if row is not None:
            say(f"{model.name}: {', '.join(_compile_cells(row, compilers))}")
            for name, reason in row.get("failed", {}).items():
                say(f"  {name} fails: {reason}")
    for level in compile_time.LEVELS:
        key = {"level": level}
        journal.measure("growth", key, row_apart, compile_time.growth_row, level, limit=limit)
    for row in journal.rows():
        shown.add_row(row["model"], *_compile_cells(row, compilers))
    console = Console(highlight=False)
    console.print(shown)
    levels = compile_time.levels(journal.rows(), journal.rows("growth"), names)
    for number, found in levels.items():
        for name, value in found["ratios"].items():
            if value is not None:
                console.print(f"geometric mean of -O {number} / {name}: {value:.2f}")
        if "error" in (growth := found["growth"]):
            console.print(f"-O {number}: growth not measured: {growth['error']}")
            continue
        (small, large), (first, second) = growth["nodes"], growth["seconds"]
        console.print(
            f"-O {number}: {small:,} nodes {first * 1000:.0f} ms, {large:,} nodes "
            f"{second * 1000:.0f} ms: {growth['over_linear']:.2f} times linear"
        )
    wrote(journal.finish(levels=levels))


def _order(name: str, row: dict[str, Any]) -> int:
    if name == "growth":
        return int(row["level"])
    return list(load_corpus()).index(row["model"])


def _compile_cells(row: dict[str, Any], compilers: list[str]) -> list[str]:
    if "error" in row:
        return ["", row["error"], *[""] * (len(compilers) - 1)]
    seconds = row["seconds"]
    return [
        str(row["nodes"]),
        *(f"{seconds[name] * 1000:.1f}" if name in seconds else "fails" for name in compilers),
    ]


def shipped_suite(
    resume: Resume = False,
    update: Update = False,
    limit: Limit = 900,
    results: Results = store.RESULTS,
) -> None:
    """Optimize, quantize, prune and merge the models that ship: latency, size, accuracy."""
    shown = table("net", "variant", "speedup", "95% interval", "bytes", "MACs", "top-1", "answers")
    keys = {"rows": ("net", "variant")}
    journal = Journal("shipped", keys, results, resume=resume, update=update)
    for variant in shipped.variants():
        key = {"net": variant.net, "variant": variant.name}
        row = journal.measure("rows", key, shipped.measured, variant, limit)
        if row is not None:
            say(" ".join(_shipped_cells(row)))
    for row in journal.rows():
        shown.add_row(*_shipped_cells(row))
    Console(width=140).print(shown)
    wrote(journal.finish())


def _shipped_cells(row: dict[str, Any]) -> list[str]:
    named = [row["net"], row["variant"]]
    if "error" in row:
        return [*named, "", row["error"], *[""] * 4]
    return [
        *named,
        *latency_cells(row["latency"]),
        *(f"{row[key][0]:,} → {row[key][1]:,}" for key in ("bytes", "macs")),
        f"{row['top1'][0]:.2%} → {row['top1'][1]:.2%}",
        row["verified"],
    ]


def decisions_suite(
    models: Annotated[
        str, typer.Option(help="Of the recognizer and the voice detectors, comma separated.")
    ] = ",".join([decisions.READER, *decisions.DETECTORS]),
    cache: cli.Cache = None,
    levels: Annotated[str, typer.Option(help="Levels, comma separated.")] = "1,2,3",
    resume: Resume = False,
    update: Update = False,
    limit: Limit = 900,
    results: Results = store.RESULTS,
) -> None:
    """Read rendered lines and tell speech from silence: the same decisions at every level?"""
    keys = {"rows": ("model", "level")}
    journal = Journal("decisions", keys, results, resume=resume, update=update)
    for model in there(cli.select([models], cache)):
        for level in map(int, levels.split(",")):
            key, asked = {"model": model.name, "level": level}, (model.name, level, cache)
            journal.measure("rows", key, row_apart, decisions.row, *asked, limit=limit)
    for row in journal.rows():
        right = row.get("right")
        told = "" if right is None else f", {right} of the original's are right"
        same = row.get("error") or f"the same in {row['same']:,} of {row['count']:,} {row['what']}"
        Console(highlight=False, soft_wrap=True).print(
            f"{row['model']} -O {row['level']}: {same}{told}"
        )
    wrote(journal.finish())


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
