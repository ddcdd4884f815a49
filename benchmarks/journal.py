"""The rows of a suite as they come: written after each, so that a stopped run can go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import store
from .printing import say
from .store import Keys, Row, Stored

Order = Callable[[str, Row], Any]
"""By what the rows of a table are sorted in a finished file."""


class Journal:
    """The rows that are there and those that come, each a line of the suite's file.

    With ``resume`` a row that is there is not measured again, unless it holds an ``error`` and
    errors are tried ``again``; with ``update`` it is, and the others are kept. Without either a
    run begins anew. ``told`` goes into the fingerprint of the run.
    """

    def __init__(
        self,
        suite: str,
        keys: Keys,
        folder: Path,
        *,
        resume: bool = False,
        update: bool = False,
        again: bool = True,
        packages: Iterable[str] = (),
        order: Order | None = None,
        **told: Any,
    ) -> None:
        self.path = store.path_of(suite, folder)
        self._resume, self._again, self._order = resume, again, order
        self._stored = Stored()
        there = store.found_at(suite, folder)
        if there is not None and (resume or update):
            self._stored = store.read(there, keys)
            self._stored.values = {}
        run = store.fingerprint(suite, packages) | told
        self._run = run | {"keys": {table: list(names) for table, names in keys.items()}}
        self._begun = False

    def rows(self, table: str = "rows") -> list[Row]:
        """All rows of ``table``."""
        rows = [row for _, row in self._stored.tables.get(table, {}).values()]
        order = self._order
        return sorted(rows, key=lambda row: order(table, row)) if order is not None else rows

    def has(self, table: str, key: Row) -> bool:
        """Whether the row with ``key`` is there and stays."""
        if not self._resume:
            return False
        identity = json.dumps([key.get(name) for name in self._run["keys"][table]])
        _, row = self._stored.tables.get(table, {}).get(identity, (0, None))
        return row is not None and not (self._again and "error" in row)

    def measure(
        self, table: str, key: Row, function: Callable[..., Row], *arguments: Any, **options: Any
    ) -> Row | None:
        """What ``function`` finds for ``key``, written at once; ``None`` where it is there.

        The function is to do its work :func:`~benchmarks.apart.apart`, and never to raise for what
        a model or a tool does.
        """
        if self.has(table, key):
            return None
        try:
            row = key | function(*arguments, **options)
        except KeyboardInterrupt:
            say("stopped: the same command with --resume goes on from here")
            raise
        self.put(table, row)
        return row

    def put(self, table: str, row: Row) -> None:
        """Write ``row``, in the place of the one with the same keys."""
        self._begin()
        run = len(self._stored.runs) - 1
        self._stored.add(table, row, run)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(store.line(store.row_of(table, row, run)))

    def finish(self, **values: Any) -> Path:
        """Write the file once more, in order, with what was made of the rows."""
        self._begin()
        self._stored.values = values
        for table, rows in self._stored.tables.items():
            order = self._order
            if order is not None:
                pairs = sorted(rows.items(), key=lambda pair: order(table, pair[1][1]))
                self._stored.tables[table] = dict(pairs)
        store.write(self.path, self._stored)
        return self.path

    def _begin(self) -> None:
        """Write what is kept, by the runs that are still told of, and the fingerprint of this."""
        if self._begun:
            return
        self._begun = True
        tables = self._stored.tables
        used = {run for rows in tables.values() for run, _ in rows.values()}
        runs = [at for at in range(len(self._stored.runs)) if at in used]
        kept = [self._stored.runs[at] for at in runs]
        if not kept or kept[-1] != self._run:
            kept.append(self._run)
        self._stored.runs = kept
        for rows in tables.values():
            for name, (run, row) in rows.items():
                rows[name] = (runs.index(run), row)
        store.write(self.path, self._stored)
