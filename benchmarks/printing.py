"""What the commands that measure share: options, tables, progress."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from .corpus import CorpusModel

Limit = Annotated[float, typer.Option(help="Seconds that one case may take.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Keep the rows that are there, measure the others.")
]
Update = Annotated[bool, typer.Option("--update", help="Keep the rows that are not asked for.")]
Results = Annotated[Path, typer.Option(help="Folder to write the results to.")]


def there(models: Iterable[CorpusModel]) -> list[CorpusModel]:
    """Those of ``models`` that are fetched; the others are told."""
    found = []
    for model in models:
        if model.is_fetched:
            found.append(model)
        else:
            say(f"{model.name}: not there, get it with {model.get_it}")
    return found


def latency_cells(latency: dict[str, Any]) -> tuple[str, str]:
    """The speedup and its interval."""
    if latency["status"] != "measured":
        return "", latency["reason"]
    low, high = latency["ci95"]
    return f"{latency['speedup']:.2f}x", f"{low:.2f} to {high:.2f}"


def table(*heads: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    first, *rest = heads
    numbers = (Column(head, justify="right") for head in rest)
    return Table(Column(first, no_wrap=True), *numbers, box=None)


def say(line: str) -> None:
    """Progress, on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False)


def wrote(path: Path) -> None:
    """Say which file was written."""
    say(f"wrote {path}")
