"""The commands that show what a compiler takes and what it stands: memory, and odd models."""

from __future__ import annotations

import statistics
from typing import Annotated, Any

import typer
from rich.console import Console

from onnxpress.backends.errors import UsageError

from . import cli, memory, robustness, store
from .odd_models import ODD
from .printing import Limit, Results, say, table, there, wrote

Tools = Annotated[str, typer.Option(help="Tools, comma separated. Default: all.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Keep the rows that are there, measure the others.")
]


def memory_suite(
    models: cli.Names = None,
    cache: cli.Cache = None,
    tools: Tools = "",
    resume: Resume = False,
    limit: Limit = 300,
    results: Results = store.RESULTS,
) -> None:
    """Peak memory of reading, compiling and writing each model, as multiples of its file."""
    names = _chosen(tools, memory.TOOLS)
    rows = store.kept("memory", ("model", "tool"), results) if resume else {}
    shown = table("model", "MB", *names)
    for model in there(cli.select(models, cache)):
        for tool in names:
            if (model.name, tool) not in rows:
                row = memory.measure(model.path, tool, limit=limit)
                rows[model.name, tool] = {"model": model.name} | row
        cells = [_times(rows[model.name, tool]) for tool in names]
        megabytes = f"{model.path.stat().st_size / 1e6:.1f}"
        shown.add_row(model.name, megabytes, *cells)
        say(f"{model.name}: {', '.join(cells)}")
        path = store.save("memory", {"rows": list(rows.values())}, folder=results)
    console = Console(width=140, highlight=False)
    console.print(shown)
    for tool in names:
        large = [
            row["times"]
            for row in rows.values()
            if row["tool"] == tool and "times" in row and row["file"] > 10e6
        ]
        if large:
            console.print(
                f"{tool}: {statistics.median(large):.1f} times files above 10 MB (median)"
            )
    wrote(path)


def _times(row: dict[str, Any]) -> str:
    return f"{row['times']:.1f}" if "times" in row else "fails"


def robustness_suite(
    cases: Annotated[str, typer.Option(help="Cases, comma separated. Default: all.")] = "",
    tools: Tools = "",
    resume: Resume = False,
    limit: Limit = 60,
    results: Results = store.RESULTS,
) -> None:
    """What tools do with models that are damaged, hostile or merely odd."""
    names = _chosen(tools, robustness.TOOLS)
    rows = store.kept("robustness", ("case", "tool"), results) if resume else {}
    shown = table("model", *names)
    for case in _chosen(cases, tuple(ODD)):
        for tool in names:
            if (case, tool) not in rows:
                rows[case, tool] = robustness.measure(case, tool, limit=limit)
        outcomes = [rows[case, tool]["outcome"] for tool in names]
        shown.add_row(case, *outcomes)
        say(f"{case}: {', '.join(outcomes)}")
        summary = robustness.counted(list(rows.values()))
        body = {"rows": list(rows.values()), "summary": summary}
        path = store.save("robustness", body, folder=results)
    console = Console(width=140, highlight=False)
    console.print(shown)
    for tool, kinds in summary.items():
        bad = {kind: kinds[kind] for kind in robustness.BAD if kind in kinds}
        told = ", ".join(f"{count} {kind}" for kind, count in bad.items()) or "nothing bad"
        console.print(f"{tool}: {told}, of {sum(kinds.values())}")
    wrote(path)


def _chosen(text: str, known: tuple[str, ...]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()] or list(known)
    for name in names:
        if name not in known:
            raise UsageError(f"there is no {name!r}", hint=", ".join(known))
    return names
