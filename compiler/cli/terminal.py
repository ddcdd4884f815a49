"""The terminal that commands write to: results, messages, and progress."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, cast

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from ..records import Progress

Volume: TypeAlias = Literal["quiet", "normal", "verbose"]

_ENDLESS = 10_000
"""The width of a file or a pipe: what reads it wants lines as they are."""


def stdout() -> Console:
    """The terminal for results. Colour follows ``NO_COLOR`` and whether this is a terminal."""
    return _console(stderr=False)


def stderr() -> Console:
    """The terminal for messages and progress."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return Console(stderr=stderr, highlight=False, emoji=False)
    width = None if "COLUMNS" in os.environ else _ENDLESS
    trimmed = cast("IO[str]", _Trimmed(stream))
    return Console(file=trimmed, highlight=False, emoji=False, width=width)


class _Trimmed:
    """A stream without the blanks that tables fill their last column up with."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``; rich writes what it fills up together with the end of the line."""
        return self._stream.write(re.sub(r"[ \t]+(?=\n)", "", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def columns(*heads: str, wide: str | None = None) -> Table:
    """A table without lines: names to the left, numbers to the right.

    ``wide`` is a last column for text, which wraps by words.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left", no_wrap=True)
    if wide is not None:
        table.add_column(wide, overflow="fold")
    return table


def facts(
    rows: Iterable[tuple[str, RenderableType]], *, gap: int = 2, style: str = "bold"
) -> Table:
    """Names and what there is to say of each, which wraps in a column of its own."""
    from rich.table import Table

    table = Table.grid(padding=(0, gap, 0, 0))
    table.add_column(style=style, no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, text)
    return table


def message(console: Console, kind: str, style: str, text: str) -> None:
    """Print ``kind: text``, further lines indented as far; lines of ``text`` stay lines."""
    from rich.markup import escape

    label = f"{kind}:"
    first, *rest = text.split("\n")
    console.print(facts([(f"[{style}]{label}[/]", escape(first))], gap=1))
    for line in rest:
        console.print(f"{'':{len(label) + 1}}{escape(line)}", soft_wrap=True)


def warn(texts: Iterable[str], kind: str = "warning") -> None:
    """Print messages that a user should see even when nothing else is printed."""
    for text in texts:
        message(stderr(), kind, "yellow", text)


def print_json(value: Any) -> None:
    """Print ``value`` as the one object on standard output; NaN and infinity become null."""
    from ..write_report import finite

    sys.stdout.write(json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


@contextmanager
def progress(wanted: bool) -> Iterator[Progress]:
    """What a command is at, on a terminal; nothing when piped or not ``wanted``.

    Yields a callable ``(stage, done, total)``; it costs next to nothing where nothing is shown.
    """
    if not (wanted and sys.stderr.isatty()):
        yield lambda _stage, _done, _total: None
        return
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    shown = (
        SpinnerColumn(),
        TimeElapsedColumn(),
        BarColumn(bar_width=20),
        TextColumn("{task.description}"),
    )
    with Progress(*shown, console=stderr(), transient=True) as bars:
        task = bars.add_task("loading", total=None)

        def advance(stage: str, done: int, total: int | None) -> None:
            # Progress.update takes no total for no change, and stops the clock at the end of a
            # stage.
            bars.tasks[0].total = total
            bars.tasks[0].finished_time = None
            bars.update(task, description=escape(stage), completed=done)

        yield advance
