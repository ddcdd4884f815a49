"""Result files: JSON lines per suite in ``benchmarks/results``, first the machine it ran on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from onnxpress.backends.environment import environment

from .corpus import CorpusError

CORPUS = Path(__file__).with_name("corpus.toml")
RESULTS = Path(__file__).with_name("results")
Row: TypeAlias = dict[str, Any]
Keys: TypeAlias = Mapping[str, Sequence[str]]
"""For each table of a suite, the fields that tell its rows apart."""
SUITES = ("compile-time", "ensembles", "lossless", "shipped", "transcript")
"""The result files that there are, by the command that writes them."""

_INTEGERS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""CPU features that decide how much int8 gains."""


@dataclass
class Stored:
    """What a result file holds: who measured (``runs``), rows by table, and everything else.

    The first line of a file is the fingerprint of the run: suite, day, commit, digest of the
    corpus, machine, versions, and the ``keys`` that tell the rows of each table apart. Then comes
    a line for each row, ``{"rows": {...}}``, and for what was made of them. A run that went on
    with what another began has a fingerprint of its own, and its rows say ``"run": 1``.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, dict[str, tuple[int, Row]]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, table: str, row: Row, run: int) -> None:
        """Put ``row`` in the place of the one with the same keys."""
        keys = self.runs[-1]["keys"][table]
        self.tables.setdefault(table, {})[json.dumps([row.get(key) for key in keys])] = (run, row)

    def whole(self) -> dict[str, Any]:
        """All of it as one object, as of its last run; ``earlier`` are the runs before."""
        last = {name: value for name, value in self.runs[-1].items() if name != "keys"}
        found = last | {table: [] for table in self.runs[-1].get("keys", ())}
        found |= {table: [row for _, row in rows.values()] for table, rows in self.tables.items()}
        earlier = {"earlier": self.runs[:-1]} if len(self.runs) > 1 else {}
        return found | earlier | self.values

    def lines(self) -> Iterator[str]:
        """The lines of its file."""
        yield from map(line, self.runs)
        for table, rows in self.tables.items():
            yield from (line(row_of(table, row, run)) for run, row in rows.values())
        yield from (line({name: value}) for name, value in self.values.items())


def row_of(table: str, row: Row, run: int) -> dict[str, Any]:
    """What the line of ``row`` says."""
    return {table: row} | ({"run": run} if run else {})


def line(value: Any) -> str:
    """``value`` as one line of JSON."""
    return json.dumps(value, allow_nan=False) + "\n"


def path_of(suite: str, folder: Path = RESULTS) -> Path:
    """The file that the results of ``suite`` are written to."""
    return folder / f"{suite.replace('-', '_')}.jsonl"


def found_at(suite: str, folder: Path = RESULTS) -> Path | None:
    """The file of ``suite`` that is there: JSON lines, or the one object of earlier versions."""
    path = path_of(suite, folder)
    return next((one for one in (path, path.with_suffix(".json")) if one.exists()), None)


def fingerprint(suite: str, packages: Iterable[str] = ()) -> dict[str, Any]:
    """The day, the commit, the corpus, the machine and the versions of all software.

    ``commit`` is that of this repository, ``corpus`` the digest of ``corpus.toml``, which holds
    the digests of the models. ``packages`` names distributions that take part, as far as they are
    installed, and are not among those that
    :func:`~onnxpress.backends.environment.environment` lists.
    """
    machine = environment()
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            machine["packages"][name] = importlib.metadata.version(name)
    return {
        "suite": suite,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
        "corpus": hashlib.sha256(CORPUS.read_bytes()).hexdigest(),
        "environment": machine,
    }


def save(
    suite: str, body: dict[str, Any], *, packages: Iterable[str] = (), folder: Path = RESULTS
) -> Path:
    """Write the results of ``suite`` that are there at once, with the fingerprint of the run."""
    stored = Stored([fingerprint(suite, packages)], values=body)
    path = path_of(suite, folder)
    write(path, stored)
    return path


def write(path: Path, stored: Stored) -> None:
    """Put ``stored`` at ``path``, whole or not at all; a file of an earlier version goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text("".join(stored.lines()), encoding="utf-8")
    part.replace(path)
    path.with_suffix(".json").unlink(missing_ok=True)


def commit(root: Path = RESULTS.parent) -> str | None:
    """The commit that is checked out, with ``+`` behind it where files differ from it.

    ``None`` outside of a checkout.
    """
    answers = []
    for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *command], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        answers.append(done.stdout.strip())
    return answers[0] + ("+" if answers[1] else "")


def load(suite: str, folder: Path = RESULTS) -> dict[str, Any]:
    """The results of ``suite`` as one object.

    Raises :class:`~benchmarks.corpus.CorpusError` where there are none.
    """
    path = found_at(suite, folder)
    if path is None:
        raise CorpusError(f"there are no results of {suite}", hint=f"python -m benchmarks {suite}")
    return read(path).whole()


def read(path: Path, keys: Keys | None = None) -> Stored:
    """What the file at ``path`` holds; of a line that was never finished, nothing.

    In the one object of earlier versions the lists that ``keys`` name are the rows. Raises
    ``ValueError`` for what is no result file.
    """
    text = path.read_text(encoding="utf-8")
    first, *rest = text.splitlines(keepends=True) or [""]
    if first == "{\n":
        first, rest = text, []
    stored = _first(json.loads(first), keys)
    for one in rest:
        if one.endswith("\n"):
            _add(stored, json.loads(one))
    return stored


def _first(head: Any, keys: Keys | None) -> Stored:
    if not isinstance(head, dict) or "suite" not in head:
        raise ValueError("it does not begin with a fingerprint")
    if "keys" in head or keys is None:
        return Stored([head])
    names = ("suite", "date", "commit", "corpus", "environment")
    run = {name: head[name] for name in names if name in head}
    stored = Stored([run | {"keys": dict(keys)}])
    for table in keys:
        for row in head.get(table, []):
            stored.add(table, row, 0)
    stored.values = {name: head[name] for name in head.keys() - {*names, *keys}}
    return stored


def _add(stored: Stored, one: dict[str, Any]) -> None:
    if "suite" in one:
        stored.runs.append(one)
        return
    run, keys = one.pop("run", 0), stored.runs[-1].get("keys", {})
    for name, value in one.items():
        if name in keys:
            stored.add(name, value, run)
        else:
            stored.values[name] = value


def machine(results: dict[str, Any]) -> str:
    """The machine and the main versions behind ``results``, in a sentence without a full stop."""
    found = results["environment"]
    cpu, packages = found["cpu"], found["packages"]
    integers = [name for name in cpu["features"] if name in _INTEGERS]
    return (
        f"{cpu['model']} ({', '.join([cpu['microarchitecture'], *(integers or ['no VNNI'])])}), "
        f"{cpu['quota'] or cpu['threads']:g} CPUs, Python {found['python']}, "
        f"onnxruntime {packages['onnxruntime']}, onnx {packages['onnx']}, "
        f"onnxsim {packages['onnxsim']}, {_days(results)}"
    )


def _days(results: dict[str, Any]) -> str:
    days = sorted({one["date"] for one in (*results.get("earlier", ()), results)})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
