"""The integer kernels of a quantized model as tables on a terminal."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import terminal

_SHOWN = 3


def kernels(console: Console, found: dict[str, Any], *, verbose: bool = False) -> None:
    """Print what :func:`~..inspect_quantization.inspect_quantization` found.

    ``verbose`` shows every group, otherwise those alike share a line.
    """
    groups = found["groups"]
    if not groups:
        console.print("\nno operator between Q and DQ")
        return
    integer = sum(bool(group["kernel"]) for group in groups)
    counts = ", ".join(f"{name} {count}" for name, count in found["kernels"].items())
    rows = [
        ("on integers", f"{integer} of {len(groups)} groups"),
        ("kernels", escape(counts or "none")),
        ("in fact", _confirmation(found)),
    ]
    saturating = sum(group["saturating"] for group in groups)
    if saturating:
        channels = sum(group["channels"] for group in groups)
        told = f"{saturating:,} of {channels:,} output channels can overflow on the target"
        rows.append(("saturation", f"[bold red]{told}[/]"))
    for name, decibels in found.get("saturation_db", {}).items():
        told = "none" if decibels is None else f"{decibels:.1f} dB of signal over what is lost"
        rows.append(("its cost", escape(f"{told}, in {name}")))
    console.print()
    console.print(terminal.facts(rows))
    console.print(_every(groups) if verbose else _alike(groups))


def _confirmation(found: dict[str, Any]) -> str:
    if found["confirmed"] is None:
        return "[yellow]not known: ONNX Runtime cannot load the model[/]"
    if found["confirmed"]:
        return "[green]ONNX Runtime makes just these[/]"
    made = ", ".join(f"{name} {count}" for name, count in found["found"].items())
    return f"[bold red]ONNX Runtime makes {escape(made or 'none')}[/]"


def _every(groups: list[dict[str, Any]]) -> Table:
    table = Table("node", "operator", "becomes", "because, and what to change")
    for group in groups:
        why = "; ".join(filter(None, (group["reason"], group["advice"])))
        kernel = escape(group["kernel"]) or "[yellow]float[/]"
        table.add_row(escape(group["node"]), escape(group["operator"]), kernel, escape(why))
    return table


def _alike(groups: list[dict[str, Any]]) -> Table:
    names: defaultdict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for group in groups:
        kind = (group["operator"], group["kernel"], group["reason"], group["advice"])
        names[kind].append(group["node"])
    table = Table("operator", "becomes", "groups", "because, and what to change")
    for (operator, kernel, reason, advice), nodes in names.items():
        why = "; ".join(filter(None, (reason, advice)))
        if not kernel:
            more = ", …" if len(nodes) > _SHOWN else ""
            why += f" ({', '.join(nodes[:_SHOWN])}{more})"
        told = escape(kernel) or "[yellow]float[/]"
        table.add_row(escape(operator), told, str(len(nodes)), escape(why))
    return table
