"""``onnxpress passes``: what there is to build a pipeline from."""

from __future__ import annotations

from typing import Annotated

import typer

from . import common


def passes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show one pass with its options.")
    ] = None,
    json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """List the passes, built in and installed, or show one with its options.

    [bold]Examples[/]

    onnxpress passes

    onnxpress passes insert-qdq
    """
    del debug
    from ...passes import registry
    from ..describe import describe

    found = [describe(one) for one in ([name] if name else registry.names())]
    if json:
        common.print_json({"passes": found})
        return
    from rich.markup import escape
    from rich.table import Table

    console = common.stdout()
    if name is None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("pass", "contract", "from", "what it does"):
            table.add_column(column)
        for one in found:
            table.add_row(one["name"], one["contract"], one["origin"], escape(one["summary"]))
        console.print(table)
        return
    (one,) = found
    console.print(f"[bold]{escape(one['name'])}[/]  {one['contract']}, {escape(one['origin'])}\n")
    console.print(escape(one["documentation"]) + "\n")
    for option in one["options"]:
        console.print(
            f"  [bold]{option['name']}[/]={escape(option['default'])}  "
            f"[dim]{escape(option['type'])}[/]"
        )
