"""The command that judges the harness by itself, on pairs of models whose difference is known."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from . import harness, store
from .corpus import CorpusError
from .printing import Results, say, table, wrote


def harness_suite(
    trials: Annotated[int, typer.Option(help="Trials of each kind, at rest and under load.")] = 100,
    seconds: Annotated[float, typer.Option(help="How long each trial times, at least.")] = 2.0,
    only: Annotated[
        str, typer.Option(help="Kinds: same, slowed, and with -loaded, comma separated.")
    ] = "same,slowed,same-loaded,slowed-loaded",
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the trials that are there.")
    ] = False,
    results: Results = store.RESULTS,
) -> None:
    """Time models against their own copies, and chains of layers against ones 5% longer."""
    rows: list[dict[str, Any]] = []
    if resume:
        try:
            rows = store.load("harness", results)["rows"]
        except CorpusError:
            say("nothing to go on with")
    done = {tuple(row[key] for key in ("kind", "load", "trial")) for row in rows}
    kinds = [name.strip().removesuffix("-loaded") for name in only.split(",")]
    loads = [name.strip().endswith("-loaded") for name in only.split(",")]
    if unknown := set(kinds) - harness.EXPECTED.keys():
        raise typer.BadParameter(f"there is no kind {unknown.pop()}")
    plans = [harness.schedule(*one, trials) for one in zip(kinds, loads, strict=True)]
    for case in (case for turn in zip(*plans, strict=True) for case in turn):
        if (case["kind"], case["load"], case["trial"]) in done:
            continue
        row = harness.measure(case, seconds)
        rows.append(row)
        say(" ".join(f"{key}={_short(value)}" for key, value in row.items()))
        _save(rows, seconds, results)
    shown = table("", "trials", "as expected", "needed", "failed", "median width of the interval")
    found = harness.summary(rows)
    for one in found:
        width = "" if one["median_width"] is None else f"{one['median_width']:.1%}"
        counts = (one["trials"], one["as_expected"], f"{one['needed']:.0%}", one["failed"])
        shown.add_row(harness.title(one), *map(str, counts), width)
    Console(width=110, highlight=False).print(shown)
    wrote(_save(rows, seconds, results))
    if not all(one["holds"] for one in found):
        raise typer.Exit(1)


def _save(rows: list[dict[str, Any]], seconds: float, results: Results) -> Results:
    body = {"seconds": seconds, "summary": harness.summary(rows), "rows": rows}
    return store.save("harness", body, folder=results)


def _short(value: object) -> str:
    if isinstance(value, list):
        return "..".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
