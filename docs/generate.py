"""Writes the reference pages from the code itself, while the site builds."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from typing import Any

import mkdocs_gen_files
import typer

import onnxpress
from onnxpress.backends import errors
from onnxpress.compiler.cli.main import app
from onnxpress.compiler.describe import describe
from onnxpress.passes import registry


def command_line() -> Iterator[str]:
    """Every command with its arguments and options, from the command line itself."""
    yield "# Command line\n"
    for command in app.registered_commands:
        yield f"## `onnxpress {command.name}`\n"
        text = inspect.cleandoc(command.callback.__doc__ or "")
        yield text.replace("[bold]", "**").replace("[/]", "**") + "\n"
        yield "| argument or option | meaning | default |\n|---|---|---|"
        hints = typing.get_type_hints(command.callback, include_extras=True)
        for name, parameter in inspect.signature(command.callback).parameters.items():
            kind, info = typing.get_args(hints[name])
            yield f"| {_written(name, kind, info)} | {_cell(info.help)} | {_default(info, parameter)} |"
        yield ""


def _written(name: str, kind: Any, info: Any) -> str:
    """The parameter as it is typed: its flags and what stands behind them."""
    choices = [one for part in (kind, *typing.get_args(kind)) for one in _literals(part)]
    value = info.metavar or "|".join(choices)
    flags = ", ".join(getattr(info, "param_decls", None) or [f"--{name.replace('_', '-')}"])
    shown = value if isinstance(info, typer.models.ArgumentInfo) else f"{flags} {value}"
    return f"`{_cell(shown.strip())}`"


def _literals(kind: Any) -> list[str]:
    is_literal = typing.get_origin(kind) is typing.Literal
    return [str(one) for one in typing.get_args(kind)] if is_literal else []


def _default(info: Any, parameter: inspect.Parameter) -> str:
    if isinstance(info.show_default, str):
        return f"`{info.show_default}`"
    if parameter.default is inspect.Parameter.empty:
        return "required"
    return "" if parameter.default in {None, False} else f"`{parameter.default}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def passes() -> Iterator[str]:
    """Every built-in pass: contract, documentation, options."""
    yield "# Passes\n"
    yield "`onnxpress passes` shows the same on a terminal, installed passes included.\n"
    for name in registry.builtin_names():
        one = describe(name)
        yield f"## `{name}`\n"
        contract = one["contract"] + (f": changes {one['changes']}" if one["changes"] else "")
        needs = " Needs data." if one["needs_data"] else ""
        yield f"*Contract: {contract}.*{needs}\n"
        yield one["documentation"].replace("::\n", ":\n") + "\n"
        if one["options"]:
            yield "| option | type | default |\n|---|---|---|"
            for option in one["options"]:
                kind = option["type"].replace("|", "\\|")
                yield f"| `{option['name']}` | `{kind}` | `{option['default']}` |"
            yield ""


def api() -> Iterator[str]:
    """What ``onnxpress`` exports."""
    yield "# Python API\n"
    yield "Everything here is imported from `onnxpress` and loads on first use.\n"
    for name in onnxpress.__all__:
        if name.startswith("__"):
            continue
        module, _, attribute = onnxpress._HOME[name].partition(":")
        yield f"::: onnxpress.{module}.{attribute or name}\n"


def error_index() -> Iterator[str]:
    """The tree of errors with exit codes."""
    yield "# Errors and exit codes\n"
    yield inspect.cleandoc(errors.__doc__ or "").replace("::\n", "\n") + "\n"
    for name, cls in vars(errors).items():
        if isinstance(cls, type) and issubclass(cls, errors.OnnxpressError):
            yield f"## `{name}`\n\nExit code {cls.exit_code}. {inspect.cleandoc(cls.__doc__ or '')}\n"


for page, lines in (
    ("command-line", command_line),
    ("passes", passes),
    ("api", api),
    ("errors", error_index),
):
    with mkdocs_gen_files.open(f"reference/{page}.md", "w") as file:
        file.write("\n".join(lines()))
