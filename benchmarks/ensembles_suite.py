"""The command that measures merged models against their members."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from . import cli, ensembles, store
from .printing import Results, say, table, wrote

_SHORT = {
    "": "side by side",
    "stack-members{layers=shared}": "mixed",
    "stack-members": "stacked",
    "stack-members{matrices=conv}": "grouped",
}


def ensembles_suite(
    only: Annotated[str, typer.Option("--case", help="Part of a case's name.")] = "",
    cache: cli.Cache = None,
    seconds: Annotated[float, typer.Option(help="Seconds for each layout of a row.")] = 1.0,
    results: Results = store.RESULTS,
) -> None:
    """Time merged models in every layout against their members run one by one."""
    shown = table(
        *("models", "threads", "batch", "apart ms", "at once", *_SHORT.values()),
        *("auto", "speedup", "of best"),
    )
    rows: list[dict[str, Any]] = []
    for case in ensembles.cases(cache):
        if only not in case.name:
            continue
        for row in ensembles.measure(case, seconds=seconds):
            rows.append(row)
            shown.add_row(*cells(row))
            say(" ".join(cells(row)))
    Console(width=140).print(shown)
    wrote(store.save("ensembles", {"rows": rows}, folder=results))


def cells(row: dict[str, Any]) -> list[str]:
    """A row as text; speedups are over the members one after another, ``at once`` in threads."""
    median = row["median_ms"]
    low, high = row["ci95"]
    return [
        row["case"],
        str(row["threads"]),
        str(row["batch"]),
        f"{median['apart']:.3f}",
        f"{median['apart'] / median['threads']:.2f}x",
        *(f"{median['apart'] / median[name]:.2f}x" if name in median else "" for name in _SHORT),
        _SHORT[row["chosen"]],
        f"{row['speedup']:.2f}x ({low:.2f} to {high:.2f})",
        f"{row['of_best']:.2f}",
    ]
