"""The command that judges the harness by itself, on pairs of models whose difference is known."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from . import harness, store
from .journal import Journal
from .printing import Results, Resume, Update, say, table, wrote


def harness_suite(
    trials: Annotated[int, typer.Option(help="Trials of each kind, at rest and under load.")] = 100,
    seconds: Annotated[float, typer.Option(help="How long each trial times, at least.")] = 2.0,
    only: Annotated[
        str, typer.Option(help="Kinds: same, slowed, and with -loaded, comma separated.")
    ] = "same,slowed,same-loaded,slowed-loaded",
    resume: Resume = False,
    update: Update = False,
    results: Results = store.RESULTS,
) -> None:
    """Time models against their own copies, and chains of layers against ones 5% longer."""
    kinds = [name.strip().removesuffix("-loaded") for name in only.split(",")]
    loads = [name.strip().endswith("-loaded") for name in only.split(",")]
    if unknown := set(kinds) - harness.EXPECTED.keys():
        raise typer.BadParameter(f"there is no kind {unknown.pop()}")
    plans = [harness.schedule(*one, trials) for one in zip(kinds, loads, strict=True)]
    # A trial that failed counts as one that did not come out as expected: it is not tried again.
    journal = Journal(
        "harness",
        {"rows": ("kind", "load", "trial")},
        results,
        resume=resume,
        update=update,
        again=False,
        seconds=seconds,
    )
    for case in (case for turn in zip(*plans, strict=True) for case in turn):
        row = journal.measure("rows", case, harness.measure, case, seconds)
        if row is not None:
            say(" ".join(f"{key}={_short(value)}" for key, value in row.items()))
    shown = table("", "trials", "as expected", "needed", "failed", "median width of the interval")
    found = harness.summary(journal.rows())
    for one in found:
        width = "" if one["median_width"] is None else f"{one['median_width']:.1%}"
        counts = (one["trials"], one["as_expected"], f"{one['needed']:.0%}", one["failed"])
        shown.add_row(harness.title(one), *map(str, counts), width)
    Console(width=110, highlight=False).print(shown)
    wrote(journal.finish(summary=found))
    if not all(one["holds"] for one in found):
        raise typer.Exit(1)


def _short(value: object) -> str:
    if isinstance(value, list):
        return "..".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
