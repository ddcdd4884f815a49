"""Help pages: examples first, options in groups, nothing cut off on a narrow terminal."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

_EXAMPLES = "Examples:"
_WIDEST_NAME = 28


def one_of(kind: object) -> str:
    """The values of a ``Literal`` as help shows them: ``cpu|cuda``."""
    return "|".join(map(str, get_args(kind)))


def split_examples(help_text: str) -> tuple[str, list[str]]:
    """The text of a command's docstring, and the command lines of its ``Examples`` section."""
    text, _, examples = inspect.cleandoc(help_text).partition(f"\n{_EXAMPLES}\n")
    return text.strip(), [line.strip() for line in examples.splitlines() if line.strip()]


def usage(parameters: Iterable[Any]) -> Iterator[str]:
    """The arguments and the options that have to be given, as they are typed."""
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            yield parameter.metavar if parameter.required else f"[{parameter.metavar}]"
    for parameter in parameters:
        if parameter.param_type_name == "option" and parameter.required:
            yield f"{parameter.opts[-1]} {parameter.metavar}"


def written(parameter: Any) -> str:
    """A parameter with all its names and what stands behind them: ``-o, --output FILE``."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    if parameter.secondary_opts:
        return f"--[no-]{parameter.opts[0].removeprefix('--')}"
    names = ", ".join(sorted(parameter.opts, key=len))
    return f"{names} {parameter.metavar}" if parameter.metavar else names


class Command(TyperCommand):
    """A command whose help is laid out as this module's first line says."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What stands behind the command's name."""
        return [*usage(self.get_params(ctx)), "[OPTIONS]"]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """The text, then the examples, each on a line of its own."""
        del ctx
        text, examples = split_examples(self.help or "")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)
        if examples:
            with formatter.section(_heading("Examples")):
                for example in examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options, by the groups that their declarations name."""
        groups: dict[str, list[tuple[str, str]]] = {}
        parameters: list[Any] = self.get_params(ctx)
        for parameter in parameters:
            argument = parameter.param_type_name == "argument"
            panel = getattr(parameter, "rich_help_panel", None)
            name = "Arguments" if argument else panel or "Options"
            groups.setdefault(name, []).append((written(parameter), parameter.help or ""))
        # typer's own --help has no group; it ends the page.
        _write(formatter, sorted(groups.items(), key=lambda group: group[0] == "Options"))


class Group(TyperGroup):
    """The program's own help page."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands by what they are for, then the options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            summary = split_examples((command.help if command else None) or "")[0]
            panel = getattr(command, "rich_help_panel", None) or "Commands"
            groups.setdefault(panel, []).append((name, summary.partition("\n\n")[0]))
        parameters: list[Any] = self.get_params(ctx)
        groups["Options"] = [(written(one), one.help or "") for one in parameters]
        _write(formatter, groups.items())


def _write(formatter: Any, groups: Iterable[tuple[str, list[tuple[str, str]]]]) -> None:
    """Sections of names and what they mean, in columns that all of them share."""
    groups = list(groups)
    longest = max(len(name) for _, rows in groups for name, _ in rows)
    width = min(longest, _WIDEST_NAME)
    for title, rows in groups:
        with formatter.section(_heading(title)):
            formatter.write_dl(
                [(_styled(f"{name:{width}}", fg="cyan"), text) for name, text in rows],
                col_max=width,
            )


def _heading(text: str) -> str:
    return _styled(text, bold=True)


def _styled(text: str, **style: Any) -> str:
    # typer leaves escapes out where the output is no terminal, but does not know NO_COLOR.
    return text if os.environ.get("NO_COLOR") else typer.style(text, **style)
