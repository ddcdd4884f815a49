"""Writes the reference pages from the code itself, while the site builds."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import mkdocs_gen_files
import typer.main

import onnxpress
from onnxpress.backends import errors
from onnxpress.compiler.cli.main import app
from onnxpress.compiler.describe import describe
from onnxpress.passes import registry


def command_line() -> Iterator[str]:
    """Every command with its arguments and options, from the command line itself."""
    yield "# Command line\n"
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        yield f"## `onnxpress {name}`\n"
        yield inspect.cleandoc(command.help or "").replace("[bold]", "**").replace("[/]", "**") + "\n"
        yield "| argument or option | meaning | default |\n|---|---|---|"
        for parameter in command.params:
            flags = [*parameter.opts, *parameter.secondary_opts]
            kind = getattr(parameter, "metavar", None) or ""
            choices = getattr(parameter.type, "choices", None)
            if choices:
                kind = " or ".join(str(getattr(one, "value", one)) for one in choices)
            shown = ", ".join(flags) if parameter.param_type_name == "option" else kind
            written = f"`{shown} {kind}`" if kind and shown != kind else f"`{shown}`"
            shown_default = getattr(parameter, "show_default", None)
            default = shown_default if isinstance(shown_default, str) else parameter.default
            text = "required" if parameter.required else "" if default is None else f"`{default}`"
            help_text = (getattr(parameter, "help", None) or "").replace("|", "\\|")
            yield f"| {written} | {help_text} | {text} |"
        yield ""


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
