"""The command that measures every exact pass by itself."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from onnxpress.backends.errors import UsageError

from . import cli, rewrites, store
from .journal import Journal
from .printing import Limit, Results, Resume, Update, latency_cells, say, table, there, wrote


def rewrites_suite(
    models: cli.Names = None,
    cache: cli.Cache = None,
    passes: Annotated[
        str, typer.Option(help="Passes, comma separated. Default: every exact one.")
    ] = "",
    seconds: Annotated[float, typer.Option(help="How long a pair of models is timed.")] = 4.0,
    resume: Resume = False,
    update: Update = False,
    limit: Limit = 300,
    results: Results = store.RESULTS,
) -> None:
    """Run each exact pass alone on every model: where it fires, and what it gains by itself."""
    names = [name.strip() for name in passes.split(",") if name.strip()] or rewrites.names()
    for name in names:
        if name not in rewrites.names():
            raise UsageError(f"there is no exact pass {name}", hint=", ".join(rewrites.names()))
    place = {name: at for at, name in enumerate(rewrites.names())}
    journal = Journal(
        "rewrites",
        {"rows": ("model", "pass")},
        results,
        resume=resume,
        update=update,
        order=lambda _, row: place.get(row["pass"], len(place)),
    )
    options = {"limit": limit, "cache": cache, "seconds": seconds}
    for model in there(cli.select(models, cache)):
        for name in names:
            key = {"model": model.name, "pass": name}
            row = journal.measure("rows", key, rewrites.measure, model.name, name, **options)
            if row is not None and row.get("rewritten", 1):
                say(f"{model.name} {name}: {_told(row)}")
    shown = table("pass", "fires on", "rewrites", "nodes", "speedup", "faster", "slower", "most on")
    for one in (summary := rewrites.summary(journal.rows())):
        shown.add_row(*cells(one))
    Console(width=140).print(shown)
    wrote(journal.finish(summary=summary))


def cells(one: dict[str, Any]) -> list[str]:
    """A row of the summary as text."""
    before, after = one["nodes"]
    mean, best = one["mean"], one["best"]
    return [
        one["pass"],
        f"{one['fires']} of {one['models']}",
        f"{one['rewritten']:,}",
        f"{before:,} → {after:,}" if one["fires"] else "",
        "" if mean is None else f"{mean:.2f}x",
        str(one["faster"]),
        str(one["slower"]),
        "" if best is None else f"{best[0]}, {best[1]:.2f}x",
    ]


def _told(row: dict[str, Any]) -> str:
    if "error" in row:
        return str(row["error"])
    before, after = row["nodes"]
    told = f"{row['rewritten']} rewrites, {before} → {after} nodes"
    return f"{told}, {' '.join(latency_cells(row['latency']))}"
