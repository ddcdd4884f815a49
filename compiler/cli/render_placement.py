"""How it looks on a terminal where the nodes of a model run on CUDA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..report_text import plural
from . import terminal


def placement(console: Console, found: Mapping[str, Any]) -> None:
    """Print how many nodes run on the GPU, and what falls back to the CPU and why."""
    total = found["cuda"] + found["cpu"]
    nodes = f"{found['cuda']:,} of {plural(total, 'node')}"
    console.print(f"\n[bold]on CUDA[/]: the provider has kernels for {nodes}")
    if found["fallbacks"]:
        table = terminal.columns("on the CPU", "nodes", wide="why")
        for row in found["fallbacks"]:
            table.add_row(escape(row["operator"]), f"{row['nodes']:,}", escape(row["reason"]))
        console.print(table)
    console.print(f"from {found['source']}; not tried on a GPU", style="dim")
