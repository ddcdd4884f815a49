"""The command that measures merged models: answers, accuracy, bytes and speed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from . import cli, ensemble_accuracy, ensemble_equalities, ensembles, store
from .corpus import CorpusError
from .printing import Results, say, table, wrote

KINDS = ("equalities", "accuracy", "bytes", "speed")
SHORT = {
    "": "side by side",
    "stack-members{layers=shared}": "mixed",
    "stack-members": "stacked",
    "stack-members{matrices=conv}": "grouped",
}


def ensembles_suite(
    only: Annotated[str, typer.Option("--case", help="Part of a case's name.")] = "",
    kinds: Annotated[str, typer.Option(help="What to do, comma separated.")] = ",".join(KINDS),
    digits: Annotated[
        Path | None, typer.Option(help="All digits (benchmarks.zoo.digits), for the accuracy.")
    ] = None,
    cache: cli.Cache = None,
    seconds: Annotated[float, typer.Option(help="Seconds for each way to run of a row.")] = 1.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows that are there, measure the others.")
    ] = False,
    results: Results = store.RESULTS,
) -> None:
    """Check and time merged models in every layout against their members run one by one."""
    rows = Rows(results, keep=resume)
    wanted = kinds.split(",")
    if "equalities" in wanted:
        for case, combine, form in ensemble_equalities.cases(cache):
            key = {"case": case.name, "combine": combine, "passes": form}
            if only in case.name and not rows.has("equalities", key):
                rows.put("equalities", key, ensemble_equalities.check(case, combine, form))
    if "accuracy" in wanted and digits is not None and not (resume and rows.of("accuracy")):
        for row in ensemble_accuracy.measure(digits):
            rows.put("accuracy", {"model": row["model"]}, row)
    for case in ensembles.cases(cache):
        if only not in case.name:
            continue
        key = {"case": case.name}
        if "bytes" in wanted and not rows.has("bytes", key):
            rows.put("bytes", key, ensembles.sizes(case))
        for threads in ensembles.THREADS if "speed" in wanted else ():
            for batch in ensembles.BATCHES:
                at = {"case": case.name, "threads": threads, "batch": batch}
                if not rows.has("speed", at):
                    row = ensembles.measure(case, threads, batch, seconds=seconds)
                    rows.put("speed", at, row)
    show(rows)
    wrote(rows.save())


class Rows:
    """The rows so far, by kind; written after each, so that an interrupted run can go on."""

    def __init__(self, folder: Path, *, keep: bool) -> None:
        self._folder = folder
        self._rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        if keep:
            try:
                found = store.load("ensembles", folder)
            except CorpusError:
                return
            self._rows |= {kind: found.get(kind, []) for kind in KINDS}

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All rows of ``kind``."""
        return self._rows[kind]

    def has(self, kind: str, key: dict[str, Any]) -> bool:
        """Whether there is a row with all of ``key``."""
        return any(key.items() <= row.items() for row in self._rows[kind])

    def put(self, kind: str, key: dict[str, Any], row: dict[str, Any]) -> None:
        """Keep ``row`` in the place of one with the same ``key``."""
        say(" ".join(str(value) for value in row.values() if not isinstance(value, dict)))
        kept = [one for one in self._rows[kind] if not key.items() <= one.items()]
        self._rows[kind] = [*kept, row]
        self.save()

    def save(self) -> Path:
        """Write them; the path."""
        return store.save("ensembles", self._rows, folder=self._folder)


def show(rows: Rows) -> None:
    """Print a table of each kind."""
    console = Console(width=150, highlight=False)
    for line in equal_lines(rows.of("equalities")):
        console.print(line)
    for row in rows.of("accuracy"):
        console.print(f"{row['model']}: {row['right']:,} of {row['of']:,} right, {row['top1']:.2%}")
    for row in rows.of("bytes"):
        console.print(f"{row['case']}: {row['members']:,} bytes apart, {row['merged']:,} merged")
    if rows.of("speed"):
        shown = table(
            *("models", "threads", "batch", "apart ms", "at once", *SHORT.values()),
            *("auto", "auto gains", "of best"),
        )
        for row in rows.of("speed"):
            shown.add_row(*cells(row))
        console.print(shown)


def equal_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each group of models: what is equal, what was refused."""
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        ran = [row for row in own if "refused" not in row]
        refused = sorted({row["combine"] for row in own if "refused" in row})
        worst = max((row["max_abs"] for row in ran), default=0.0)
        blind = sorted({row["combine"] for row in ran if row["equal"] is None})
        ran = [row for row in ran if row["equal"] is not None]
        unsure = max((row.get("undecided", 0.0) for row in ran), default=0.0)
        yield (
            f"{case}: {sum(row['equal'] for row in ran)} of {len(ran)} equal, at most {worst:.1e} "
            f"apart"
            + (f"; votes too close to call left out, at most {unsure:.1%}" if unsure else "")
            + (f"; nothing to compare: {', '.join(blind)}" if blind else "")
            + (f"; refused: {', '.join(refused)}" if refused else "")
        )


def cells(row: dict[str, Any]) -> list[str]:
    """A row as text; all is relative to the members one after another (``apart``)."""
    median = row["median_ms"]
    apart = row["against"]["apart"]
    return [
        row["case"],
        str(row["threads"]),
        str(row["batch"]),
        f"{median['apart']:.3f}",
        f"{median['apart'] / median['at once']:.2f}x",
        *(f"{median['apart'] / median[name]:.2f}x" if name in median else "" for name in SHORT),
        SHORT[row["chosen"]] + ("*" if row["options"] else ""),
        f"{apart['speedup']:.2f}x ({apart['ci95'][0]:.2f} to {apart['ci95'][1]:.2f})",
        f"{row['of_best']:.2f} ({row['of_best_ci95'][0]:.2f} to {row['of_best_ci95'][1]:.2f})",
    ]
