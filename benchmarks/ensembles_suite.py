"""The command that measures merged models: answers, accuracy, bytes and speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from onnxpress.passes.ensembles.combine import Combine

from . import cli, ensemble_accuracy, ensemble_equalities, ensembles, store
from .apart import CallError, apart, row_apart
from .journal import Journal
from .printing import Limit, Results, Resume, Update, say, table, wrote

KEYS = {
    "equalities": ("case", "combine", "passes"),
    "accuracy": ("model",),
    "bytes": ("case",),
    "speed": ("case", "threads", "batch"),
}
KINDS = tuple(KEYS)
SHORT = {
    "": "side by side",
    "stack-members{layers=shared}": "mixed",
    "stack-members": "stacked",
    "stack-members{matrices=conv}": "grouped",
}
COLUMNS = (
    *("models", "threads", "batch", "apart ms", "at once", *SHORT.values()),
    *("auto", "auto gains", "speed, of best"),
)


def ensembles_suite(
    only: Annotated[str, typer.Option("--case", help="Part of a case's name.")] = "",
    kinds: Annotated[str, typer.Option(help="What to do, comma separated.")] = ",".join(KINDS),
    digits: Annotated[
        Path | None, typer.Option(help="All digits (benchmarks.zoo.digits), for the accuracy.")
    ] = None,
    cache: cli.Cache = None,
    seconds: Annotated[float, typer.Option(help="Seconds for each way to run of a row.")] = 1.0,
    resume: Resume = False,
    update: Update = False,
    limit: Limit = 900,
    results: Results = store.RESULTS,
) -> None:
    """Check and time merged models in every layout against their members run one by one."""
    journal = Journal("ensembles", KEYS, results, resume=resume, update=update)
    wanted = kinds.split(",")
    if "equalities" in wanted:
        for case, combine, form in ensemble_equalities.cases(cache):
            one: dict[str, Any] = {"case": case.name, "combine": combine, "passes": form}
            if only in case.name:
                how = (case.name, combine, form, cache)
                _told(journal.measure("equalities", one, row_apart, _equality, *how, limit=limit))
    if "accuracy" in wanted and digits is not None:
        _accuracies(journal, digits, limit)
    for case in ensembles.cases(cache):
        if only not in case.name:
            continue
        key: dict[str, Any] = {"case": case.name}
        if "bytes" in wanted:
            _told(journal.measure("bytes", key, row_apart, _bytes, case.name, cache, limit=limit))
        for threads in ensembles.THREADS if "speed" in wanted else ():
            for batch in ensembles.BATCHES:
                key = {"case": case.name, "threads": threads, "batch": batch}
                at = (threads, batch, cache, seconds)
                _told(journal.measure("speed", key, row_apart, _speed, case.name, *at, limit=limit))
    show(journal)
    wrote(journal.finish())


def _accuracies(journal: Journal, digits: Path, limit: float) -> None:
    """All combinations in one process: they are fitted to the same answers."""
    names = (*ensemble_accuracy.NAMES, *ensemble_accuracy.COMBINED)
    if all(journal.has("accuracy", {"model": name}) for name in names):
        return
    try:
        rows = apart(ensemble_accuracy.measure, digits, limit=limit)
    except CallError as error:
        say(f"accuracy: {error}")
        return
    for row in rows:
        journal.put("accuracy", row)
        _told(row)


def _equality(name: str, combine: Combine, form: str, cache: Path | None) -> dict[str, Any]:
    return ensemble_equalities.check(_named(ensemble_equalities.groups(cache), name), combine, form)


def _bytes(name: str, cache: Path | None) -> dict[str, Any]:
    return ensembles.sizes(_named(ensembles.cases(cache), name))


def _speed(
    name: str, threads: int, batch: int, cache: Path | None, seconds: float
) -> dict[str, Any]:
    case = _named(ensembles.cases(cache), name)
    return ensembles.measure(case, threads, batch, seconds=seconds)


def _named(cases: Iterable[ensembles.Case], name: str) -> ensembles.Case:
    return next(case for case in cases if case.name == name)


def _told(row: dict[str, Any] | None) -> None:
    if row is not None:
        say(" ".join(str(value) for value in row.values() if not isinstance(value, dict)))


def show(journal: Journal) -> None:
    """Print a table of each kind."""
    console = Console(width=150, highlight=False)
    found = {kind: [row for row in journal.rows(kind) if "error" not in row] for kind in KINDS}
    for kind in KINDS:
        for row in journal.rows(kind):
            if "error" in row:
                console.print(f"{kind}, {' '.join(str(row.get(k)) for k in KEYS[kind])}: fails")
    for line in equal_lines(found["equalities"]):
        console.print(line)
    for row in found["accuracy"]:
        console.print(f"{row['model']}: {row['right']:,} of {row['of']:,} right, {row['top1']:.2%}")
    for row in found["bytes"]:
        console.print(f"{row['case']}: {row['members']:,} bytes apart, {row['merged']:,} merged")
    if found["speed"]:
        shown = table(*COLUMNS)
        for row in found["speed"]:
            shown.add_row(*cells(row))
        console.print(shown)


def tables(
    results: Mapping[str, Any],
) -> Iterator[tuple[Sequence[str], list[list[str]]]]:
    """Accuracy, bytes and speed, each as a head and its rows; those that failed are left out."""
    kept = {
        kind: [row for row in results[kind] if "error" not in row]
        for kind in KINDS
        if kind != "equalities"
    }
    yield ("model", "top-1"), [[row["model"], f"{row['top1']:.2%}"] for row in kept["accuracy"]]
    sizes = [[row["case"], f"{row['members']:,}", f"{row['merged']:,}"] for row in kept["bytes"]]
    yield ("models", "bytes apart", "bytes merged"), sizes
    yield COLUMNS, [cells(row) for row in kept["speed"]]


def equal_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each group of models: what is equal, what was refused."""
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        ran = [row for row in own if "refused" not in row and "error" not in row]
        failed = sorted({row["combine"] for row in own if "error" in row})
        refused = sorted({row["combine"] for row in own if "refused" in row})
        worst = max((row["max_abs"] for row in ran), default=0.0)
        unsure = max((row.get("undecided", 0.0) for row in ran), default=0.0)
        yield (
            f"{case}: {sum(row['equal'] for row in ran)} of {len(ran)} equal, at most {worst:.1e} "
            f"apart"
            + (
                f"; votes within rounding leave at most {unsure:.2%} of an output open"
                if unsure
                else ""
            )
            + (f"; refused: {', '.join(refused)}" if refused else "")
            + (f"; failed: {', '.join(failed)}" if failed else "")
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
