"""``onnxpress passes``: what there is to build a pipeline from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common, terminal

if TYPE_CHECKING:
    from rich.console import Console


def _complete(typed: str) -> list[str]:
    from ...passes import registry

    return [name for name in registry.names() if name.startswith(typed)]


def passes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Show one pass with its options.", autocompletion=_complete
        ),
    ] = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: Annotated[bool, common.verbose("each pass's options")] = False,
    debug: common.Debug = False,
) -> None:
    """List the passes that pipelines are made of, or show one with its options.

    Examples:
        onnxpress passes
        onnxpress passes insert-qdq
    """
    del debug
    volume = common.volume(quiet, verbose)
    from ...passes import registry
    from ..describe import describe

    found = [describe(one) for one in ([name] if name else registry.names())]
    if json:
        terminal.print_json({"passes": found})
    elif volume == "quiet":
        return
    elif name is None:
        _list(terminal.stdout(), found, verbose=volume == "verbose")
    else:
        _show(terminal.stdout(), found[0])


def _list(console: Console, found: list[dict[str, Any]], *, verbose: bool) -> None:
    """One row a pass; ``verbose`` adds each option with its default."""
    from rich.markup import escape

    table = terminal.columns("pass", wide="what it does")
    for one in found:
        text = escape(one["summary"])
        if one["contract"] != "exact":
            needs = ", needs data" if one["needs_data"] else ""
            text += f" [yellow]{one['contract'].capitalize()}{needs}.[/]"
        if one["origin"] != "built in":
            text += f" [dim]From {escape(one['origin'])}.[/]"
        if verbose and one["options"]:
            shown = ",".join(f"{option['name']}={option['default']}" for option in one["options"])
            text += f"\n[dim]{escape(shown)}[/]"
        table.add_row(f"[bold]{escape(one['name'])}[/]", text)
    console.print(table)
    console.print("\n`onnxpress passes NAME` shows a pass with its options.", style="dim")


def _show(console: Console, one: dict[str, Any]) -> None:
    from rich.markup import escape

    changes = f": {one['changes']}" if one["changes"] else ""
    needs = "; needs data" if one["needs_data"] else ""
    terms = f"{one['contract']}{changes}{needs}, {one['origin']}"
    console.print(f"[bold]{escape(one['name'])}[/]  {escape(terms)}")
    for paragraph in _paragraphs(one["text"]):
        console.print()
        console.print(paragraph)
    if not one["options"]:
        return
    table = terminal.columns("option", "default", wide="meaning")
    table.columns[1].justify = "left"
    for option in one["options"]:
        kind = "" if option["meaning"] else option["type"]
        meaning = _styled(option["meaning"]) or escape(kind)
        table.add_row(f"[bold]{option['name']}[/]", escape(option["default"]), meaning)
    console.print()
    console.print(table)


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a docstring; one that is indented keeps its lines."""
    for paragraph in text.split("\n\n"):
        keeps = paragraph.startswith((" ", "- "))
        whole = paragraph if keeps else paragraph.replace("\n", " ")
        yield _styled(re.sub(r"::$", ":", whole))


def _styled(text: str) -> str:
    """A docstring's code marks as colour."""
    from rich.markup import escape

    return re.sub(r"``([^`]+)``", r"[cyan]\1[/]", escape(text))
