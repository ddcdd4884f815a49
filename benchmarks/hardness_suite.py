"""The commands that show what a compiler takes and what it stands: memory, and odd models."""

from __future__ import annotations

import statistics
from typing import Annotated, Any

import typer
from rich.console import Console

from onnxpress.backends.errors import UsageError

from . import cli, memory, robustness, store
from .journal import Journal
from .odd_models import ODD
from .printing import Limit, Results, Resume, Update, say, table, there, wrote

Tools = Annotated[str, typer.Option(help="Tools, comma separated. Default: all.")]


def memory_suite(
    models: cli.Names = None,
    cache: cli.Cache = None,
    tools: Tools = "",
    resume: Resume = False,
    update: Update = False,
    limit: Limit = 300,
    results: Results = store.RESULTS,
) -> None:
    """Peak memory of reading, compiling and writing each model, as multiples of its file."""
    names = _chosen(tools, memory.TOOLS)
    keys = {"rows": ("model", "tool")}
    journal = Journal("memory", keys, results, resume=resume, update=update)
    shown = table("model", "MB", *names)
    for model in there(cli.select(models, cache)):
        for tool in names:
            key = {"model": model.name, "tool": tool}
            journal.measure("rows", key, memory.measure, model.path, tool, limit=limit)
        found = {row["tool"]: row for row in journal.rows() if row["model"] == model.name}
        cells = [_times(found[tool]) for tool in names]
        megabytes = f"{model.path.stat().st_size / 1e6:.1f}"
        shown.add_row(model.name, megabytes, *cells)
        say(f"{model.name}: {', '.join(cells)}")
    console = Console(width=140, highlight=False)
    console.print(shown)
    for tool in names:
        large = [
            row["times"]
            for row in journal.rows()
            if row["tool"] == tool and "times" in row and row["file"] > 10e6
        ]
        if large:
            console.print(
                f"{tool}: {statistics.median(large):.1f} times files above 10 MB (median)"
            )
    wrote(journal.finish())


def _times(row: dict[str, Any]) -> str:
    return f"{row['times']:.1f}" if "times" in row else "fails"


def robustness_suite(
    cases: Annotated[str, typer.Option(help="Cases, comma separated. Default: all.")] = "",
    tools: Tools = "",
    resume: Resume = False,
    update: Update = False,
    limit: Limit = 60,
    results: Results = store.RESULTS,
) -> None:
    """What tools do with models that are damaged, hostile or merely odd."""
    names = _chosen(tools, robustness.TOOLS)
    keys = {"rows": ("case", "tool")}
    journal = Journal("robustness", keys, results, resume=resume, update=update)
    shown = table("model", *names)
    for case in _chosen(cases, tuple(ODD)):
        for tool in names:
            key = {"case": case, "tool": tool}
            journal.measure("rows", key, robustness.measure, case, tool, limit=limit)
        found = {row["tool"]: row for row in journal.rows() if row["case"] == case}
        outcomes = [found[tool]["outcome"] for tool in names]
        shown.add_row(case, *outcomes)
        say(f"{case}: {', '.join(outcomes)}")
    console = Console(width=140, highlight=False)
    console.print(shown)
    summary = robustness.counted(journal.rows())
    for tool, kinds in summary.items():
        bad = {kind: kinds[kind] for kind in robustness.BAD if kind in kinds}
        told = ", ".join(f"{count} {kind}" for kind, count in bad.items()) or "nothing bad"
        console.print(f"{tool}: {told}, of {sum(kinds.values())}")
    wrote(journal.finish(summary=summary))


def _chosen(text: str, known: tuple[str, ...]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()] or list(known)
    for name in names:
        if name not in known:
            raise UsageError(f"there is no {name!r}", hint=", ".join(known))
    return names
