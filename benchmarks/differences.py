"""What changed between two result files of one suite: faster, slower, wrong, larger, gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer
from rich.console import Console

from onnxpress.backends.errors import UsageError
from onnxpress.backends.timing import EFFECT

from . import store
from .printing import table

Change: TypeAlias = Literal["wrong", "slower", "less accurate", "gone", "larger", "faster", "new"]
BAD: tuple[Change, ...] = ("wrong", "slower", "less accurate", "gone")
"""Changes that make the command fail."""
POINTS = 0.005
"""By how much the share of right answers may fall: half a point."""
_KEYS = (
    *("model", "net", "case", "kind", "asked", "variant", "method", "tool", "level", "pass"),
    *("scheme", "members", "batch", "threads", "load", "trial"),
)
"""Fields that say what a row is about, as far as it has them."""


@dataclass(frozen=True)
class Difference:
    """One row that changed, and from what to what."""

    row: str
    change: Change
    before: str
    after: str


def compare(
    old: Annotated[Path, typer.Argument(help="The earlier result file.")],
    new: Annotated[
        Path | None,
        typer.Argument(help="The later one, of the same suite. Default: none, see below."),
    ] = None,
    part: Annotated[
        bool, typer.Option("--part", help="NEW was measured on some of the rows only.")
    ] = False,
    apart: Annotated[
        float, typer.Option(help="How far intervals have to lie apart, as a share.")
    ] = EFFECT,
) -> None:
    """Say what got faster, slower or wrong from OLD to NEW; fails if anything got worse.

    Speedups are ratios against the original in the same process, so files of different days, and
    to some degree of different machines, compare. They differ where their intervals lie apart by
    more than ``--apart``, which is 1.5% by default.

    Without NEW, each row of OLD is held against the original in its own run: on any machine.
    """
    before = _read(old)
    if new is None:
        _show(list(against_originals(before["rows"], apart)))
        return
    after = _read(new)
    if before["suite"] != after["suite"]:
        raise UsageError(f"{old} is of {before['suite']}, {new} of {after['suite']}")
    if machine(before) != machine(after):
        _console().print(f"other machines: {machine(before)}; {machine(after)}", markup=False)
    _show(list(differences(before["rows"], after["rows"], part=part, apart=apart)))


def _console() -> Console:
    return Console(width=120, highlight=False)


def _show(found: list[Difference]) -> None:
    shown = table("row", "change", "before", "after")
    for one in found:
        shown.add_row(one.row, one.change, one.before, one.after)
    _console().print(shown if found else "nothing changed")
    if any(one.change in BAD for one in found):
        raise typer.Exit(1)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = store.read(path).whole()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no result file: {error}") from error
    if "rows" not in found:
        raise UsageError(f"{path} has no rows to compare")
    return found


def machine(results: Mapping[str, Any]) -> str:
    """The processor and the ONNX Runtime that ``results`` are from."""
    environment = results.get("environment", {})
    packages, cpu = environment.get("packages", {}), environment.get("cpu", {})
    return f"{cpu.get('model', '?')} {cpu.get('microarchitecture', '?')}, onnxruntime " + str(
        packages.get("onnxruntime", "?")
    )


def differences(
    before: list[dict[str, Any]],
    after: list[dict[str, Any]],
    *,
    part: bool = False,
    apart: float = EFFECT,
) -> Iterator[Difference]:
    """What changed between the rows of two result files, the worst first.

    Rows that ``after`` lacks are gone, unless it is a ``part``. Latencies differ where their
    intervals lie ``apart``.
    """
    old, new = ({_name(row): row for row in rows} for rows in (before, after))
    found = [Difference(name, "gone", "there", "") for name in old.keys() - new.keys() if not part]
    found += [Difference(name, "new", "", "there") for name in new.keys() - old.keys()]
    for name in old.keys() & new.keys():
        found += _of_row(name, old[name], new[name], apart)
    order = [*BAD, "larger", "faster", "new"]
    yield from sorted(found, key=lambda one: (order.index(one.change), one.row))


def against_originals(rows: list[dict[str, Any]], apart: float = EFFECT) -> Iterator[Difference]:
    """What is wrong, or slower than its original by more than ``apart``, in one result file."""
    for row in rows:
        state = row.get("error") or row.get("verified", "ok")
        if state != "ok":
            yield Difference(_name(row), "wrong", "the original", str(state))
        same = {"status": "measured", "speedup": 1.0, "ci95": [1.0, 1.0]}
        for one in _latency(_name(row), same, row.get("latency", {}), apart):
            if one.change in BAD:
                yield one


def _name(row: Mapping[str, Any]) -> str:
    return " ".join(
        f"-O {row[key]}" if key == "level" else str(row[key]) for key in _KEYS if key in row
    )


def _of_row(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], apart: float
) -> Iterator[Difference]:
    states = [row.get("error") or row.get("verified", "ok") for row in (old, new)]
    if states[0] != states[1] and "ok" in states:
        yield Difference(name, "wrong" if states[0] == "ok" else "new", *map(str, states))
    yield from _latency(name, old.get("latency", {}), new.get("latency", {}), apart)
    if "top1" in old and "top1" in new and new["top1"][-1] < old["top1"][-1] - POINTS:
        shares = [f"{row['top1'][-1]:.2%}" for row in (old, new)]
        yield Difference(name, "less accurate", *shares)
    if "nodes" in old and "nodes" in new:
        counts = [row["nodes"][-1] if isinstance(row["nodes"], list) else 0 for row in (old, new)]
        if counts[1] > counts[0]:
            yield Difference(name, "larger", *(f"{count} nodes" for count in counts))


def _latency(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], apart: float
) -> Iterator[Difference]:
    for batch in (old.keys() & new.keys()) - {"before", "after"}:
        if isinstance(old[batch], dict) and isinstance(new[batch], dict):
            yield from _latency(f"{name} batch {batch}", old[batch], new[batch], apart)
    if old.get("status") != "measured" or new.get("status") != "measured":
        return
    shown = [
        f"{one['speedup']:.2f}x ({one['ci95'][0]:.2f} to {one['ci95'][1]:.2f})"
        for one in (old, new)
    ]
    if new["ci95"][1] * (1 + apart) < old["ci95"][0]:
        yield Difference(name, "slower", *shown)
    if new["ci95"][0] > old["ci95"][1] * (1 + apart):
        yield Difference(name, "faster", *shown)
