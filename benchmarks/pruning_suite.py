"""The command that shows what pruning leaves of models, beside other tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from onnxpress.backends.errors import UsageError

from . import pruning, pruning_peers, pruning_real, store
from .journal import Journal
from .printing import Limit, Results, Resume, Update, latency_cells, say, table, wrote

KEYS = {"rows": ("net", "asked", "method")}
_REAL_KEYS = {"rows": ("kind", "model", "batch", "method", "samples")}
_PACKAGES = ("torch", "torch-pruning")


def pruning_suite(
    nets: Annotated[str, typer.Option(help="Nets that ship, comma separated.")] = ",".join(
        pruning.FRACTIONS
    ),
    methods: Annotated[
        str, typer.Option(help="Criteria and tools, comma separated. Default: every one.")
    ] = ",".join((*pruning.METHODS, *pruning_peers.PEERS)),
    resume: Resume = False,
    update: Update = False,
    limit: Limit = 600,
    results: Results = store.RESULTS,
) -> None:
    """Prune the nets that ship to several fractions, by several criteria and other tools."""
    going = {"resume": resume, "update": update}
    journal = Journal("pruning", KEYS, results, packages=_PACKAGES, order=_order, **going)
    wanted = list(
        pruning.cases(
            _known(methods, (*pruning.METHODS, *pruning_peers.PEERS)),
            _known(nets, tuple(pruning.FRACTIONS)),
        )
    )
    for case in wanted:
        row = journal.measure("rows", case.key, pruning.measure, case, limit)
        if row is not None:
            say(" ".join([case.net, f"{case.macs:g}", *_cells(row)]))
    Console(width=140, highlight=False).print(_shown(journal.rows()))
    wrote(journal.finish())


def pruning_real_suite(
    kinds: Annotated[
        str, typer.Option(help="What to measure, comma separated. Default: everything.")
    ] = ",".join(pruning_real.KINDS),
    resume: Resume = False,
    update: Update = False,
    limit: Limit = 900,
    results: Results = store.RESULTS,
) -> None:
    """Prune a sentence encoder, a recognizer of text and the corpus; time networks at half."""
    journal = Journal("pruning-real", _REAL_KEYS, results, resume=resume, update=update)
    for kind in _known(kinds, tuple(pruning_real.KINDS)):
        for key in pruning_real.keys(kind):
            whole = {"kind": kind, **key}
            one = journal.measure("rows", whole, pruning_real.measure, kind, key, limit)
            if one is not None:
                say(" ".join(_facts(one)))
    shown = table("kind", "", "", "")
    for row in journal.rows():
        shown.add_row(*_facts(row))
    Console(width=140, highlight=False).print(shown)
    wrote(journal.finish())


def _order(_: str, row: dict[str, Any]) -> int:
    order = {tuple(case.key.values()): at for at, case in enumerate(pruning.cases())}
    return order.get(tuple(row.get(place) for place in KEYS["rows"]), -1)


def _known(text: str, names: Sequence[str]) -> list[str]:
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    for name in chosen:
        if name not in names:
            raise UsageError(f"there is no {name!r} here", hint=f"known are {', '.join(names)}")
    return chosen


def _cells(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["method"], row["error"]]
    before, after = row["macs"]
    return [
        row["method"],
        f"{after / before:.3f}",
        *(f"{one:.2%}" for one in row["top1"]),
        *(latency_cells(row["latency"][str(batch)])[0] for batch in pruning.BATCHES),
        f"{row['seconds']:.0f} s",
    ]


def _facts(row: dict[str, Any]) -> list[str]:
    """One row of real models: what it is, how much work is left, what is seen."""
    named = [str(row[key]) for key in ("model", "batch", "method", "samples") if key in row]
    if "error" in row:
        return [row["kind"], " ".join(named), "", row["error"]]
    before, after = row["macs"]
    seen = [
        f"{key} {row[key]:.4f}" for key in ("cosine", "least", "rank_correlation") if key in row
    ]
    if "exact" in row:
        seen.append("exact match " + " to ".join(f"{one:.1f}" for one in row["exact"]))
    if "sizes" in row:
        seen.append(f"runs at all sizes ({row['sizes']})")
    if "peak_mb" in row:
        seen.append(f"{row['peak_mb']:.0f} MB at the peak")
    if "latency" in row:
        speedup, interval = latency_cells(row["latency"])
        seen.append(f"{speedup} ({interval})")
    return [row["kind"], " ".join(named), f"{after / before:.3f}", ", ".join(seen)]


def _shown(rows: Sequence[dict[str, Any]]) -> Table:
    heads = (f"x, batch {batch}" for batch in pruning.BATCHES)
    shown = table("net", "asked", "method", "MACs", "dense", "pruned", *heads, "")
    for row in rows:
        shown.add_row(row["net"], f"{row['asked']:g}", *_cells(row))
    return shown
