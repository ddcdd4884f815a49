"""The command that shows what pruning leaves of models, beside other tools."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from onnxpress.backends.errors import UsageError

from . import pruning, pruning_peers, pruning_real, store
from .corpus import CorpusError
from .printing import Limit, Results, latency_cells, say, table, wrote


def pruning_suite(
    nets: Annotated[str, typer.Option(help="Nets that ship, comma separated.")] = ",".join(
        pruning.FRACTIONS
    ),
    methods: Annotated[
        str, typer.Option(help="Criteria and tools, comma separated. Default: every one.")
    ] = ",".join((*pruning.METHODS, *pruning_peers.PEERS)),
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows that are there, measure the others.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Keep the rows that are not asked for.")
    ] = False,
    limit: Limit = 600,
    results: Results = store.RESULTS,
) -> None:
    """Prune the nets that ship to several fractions, by several criteria and other tools."""
    rows = Rows(results, keep=resume or update)
    wanted = list(
        pruning.cases(
            _known(methods, (*pruning.METHODS, *pruning_peers.PEERS)),
            _known(nets, tuple(pruning.FRACTIONS)),
        )
    )
    for case in wanted:
        if not (resume and rows.has(case.key)):
            row = pruning.measure(case, limit)
            rows.put(case.key, row)
            say(" ".join([case.net, f"{case.macs:g}", *_cells(row)]))
    Console(width=140, highlight=False).print(_shown(rows.rows))
    wrote(rows.save())


def pruning_real_suite(
    kinds: Annotated[
        str, typer.Option(help="What to measure, comma separated. Default: everything.")
    ] = ",".join(pruning_real.KINDS),
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows that are there, measure the others.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Keep the rows that are not asked for.")
    ] = False,
    limit: Limit = 900,
    results: Results = store.RESULTS,
) -> None:
    """Prune a sentence encoder, a recognizer of text and the corpus; time networks at half."""
    rows = Rows(results, keep=resume or update, suite="pruning-real")
    for kind in _known(kinds, tuple(pruning_real.KINDS)):
        for key in pruning_real.keys(kind):
            if not (resume and rows.has({"kind": kind, **key})):
                row = pruning_real.measure(kind, key, limit)
                rows.put({"kind": kind, **key}, row)
                say(" ".join(_facts(row)))
    shown = table("kind", "", "", "")
    for row in rows.rows:
        shown.add_row(*_facts(row))
    Console(width=140, highlight=False).print(shown)
    wrote(rows.save())


class Rows:
    """The rows so far; written after each, so that an interrupted run can go on."""

    def __init__(self, folder: Path, *, keep: bool, suite: str = "pruning") -> None:
        self.folder = folder
        self.suite = suite
        self.rows: list[dict[str, Any]] = []
        if keep:
            try:
                self.rows = store.load(suite, folder)["rows"]
            except CorpusError:
                return

    def has(self, key: dict[str, Any]) -> bool:
        """Whether there is a row with ``key``; that a tool fails is a row as well."""
        return any(key.items() <= row.items() for row in self.rows)

    def put(self, key: dict[str, Any], row: dict[str, Any]) -> None:
        """Add ``row`` in the place of the one with ``key``."""
        self.rows[:] = [one for one in self.rows if not key.items() <= one.items()]
        self.rows.append(row)
        self.save()

    def save(self) -> Path:
        """Write them in the order of the suite."""
        order = {tuple(case.key.values()): at for at, case in enumerate(pruning.cases())}
        places = ("net", "asked", "method")
        self.rows.sort(key=lambda row: order.get(tuple(row.get(place) for place in places), -1))
        packages = [
            package
            for package, module in (("torch-pruning", "torch_pruning"), ("torch", "torch"))
            if importlib.util.find_spec(module)
        ]
        return store.save(self.suite, {"rows": self.rows}, packages=packages, folder=self.folder)


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
