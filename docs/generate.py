"""Writes the reference pages from the code itself, while the site builds."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mkdocs_gen_files
from typer.main import get_command

import onnxpress
from onnxpress.backends import errors
from onnxpress.compiler.cli.help import split_examples, usage, written
from onnxpress.compiler.cli.main import app
from onnxpress.compiler.describe import describe
from onnxpress.passes import registry

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]


def command_line() -> Iterator[str]:
    """What holds for all commands, and what each is for."""
    yield "# Command line\n"
    yield (
        "Every command takes `--json`, which prints one object on standard output and nothing "
        "else there, `--quiet`, `--verbose` and `--help`. Colour respects `NO_COLOR`; progress is "
        "shown on a terminal only. `onnxpress --install-completion` completes commands, options "
        "and names of passes in your shell. What an exit code says stands under "
        "[Errors and exit codes](errors.md), what JSON holds under [Reports](reports.md).\n"
    )
    rows = [
        (
            f"[`onnxpress {name}`](commands/{name}.md)",
            split_examples(command.help)[0].splitlines()[0],
        )
        for name, command in COMMANDS.items()
    ]
    yield from _table(("Command", "What it does"), rows)


def command_page(name: str) -> Iterator[str]:
    """One command with its arguments and options, from the command line itself."""
    command = COMMANDS[name]
    text, examples = split_examples(command.help)
    yield f"# `onnxpress {name}`\n"
    yield f"{text}\n"
    yield from ["```bash", *examples, "```\n"]
    yield f"Usage: `onnxpress {name} {' '.join(usage(command.params))} [OPTIONS]`\n"
    groups: dict[str, list[tuple[str, str]]] = {}
    for one in command.params:
        argument = one.param_type_name == "argument"
        group = "Arguments" if argument else one.rich_help_panel
        groups.setdefault(group, []).append((f"`{written(one)}`", one.help))
    for group, rows in groups.items():
        yield from _table((group, "Meaning"), rows)


def passes() -> Iterator[str]:
    """Every built-in pass: contract, documentation, options."""
    yield "# Passes\n"
    yield (
        "A pipeline is text: names of passes with commas between, options in braces, "
        "`fixpoint{…}` around passes that are repeated until nothing changes. "
        "`onnxpress passes` shows what follows on a terminal, installed passes included.\n"
    )
    known = [describe(name) for name in registry.builtin_names()]
    links = [(f"[`{one['name']}`](#{one['name']})", one["summary"]) for one in known]
    yield from _table(("Pass", "What it does"), links)
    for one in known:
        yield f"## `{one['name']}` {{ #{one['name']} }}\n"
        changes = f": {one['changes']}" if one["changes"] else ""
        needs = " It needs data." if one["needs_data"] else ""
        yield f"*{one['contract'].capitalize()}{changes}.*{needs}\n"
        yield _markdown(one["text"]) + "\n"
        if one["options"]:
            rows = [
                (
                    f"`{option['name']}`",
                    f"`{option['default']}`",
                    f"`{option['type']}`",
                    _markdown(option["meaning"]),
                )
                for option in one["options"]
            ]
            yield from _table(("Option", "Default", "Type", "Meaning"), rows)


def rewrites() -> Iterator[str]:
    """What each exact pass does by itself, from the results of the benchmark."""
    yield "# What each rewrite gains\n"
    yield (
        "Where each pass fires on the real models of the corpus, and what it gains alone: between "
        "`fold-constants,cleanup` and the same once more, against these two without it; these two "
        "themselves against the model as it is. Gains of passes overlap, so they do not multiply "
        "to that of a level. `python -m benchmarks rewrites` measures it. *Faster* and *slower* "
        "count the models whose whole 95% interval is beyond 1 by more than 1.5%.\n"
    )
    path = Path(__file__).parents[1] / "benchmarks" / "results" / "rewrites.jsonl"
    if not path.is_file():
        yield "Not measured yet.\n"
        return
    first, *others = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    fired = [one["rows"] for one in others if one.get("rows", {}).get("rewritten")]
    (summary,) = (one["summary"] for one in others if "summary" in one)
    rows = [
        (
            f"[`{one['pass']}`](passes.md#{one['pass']})",
            f"{one['fires']} of {one['models']} models",
            f"{one['rewritten']:,}",
            f"{one['nodes'][0]:,} → {one['nodes'][1]:,}" if one["fires"] else "",
            f"{one['mean']:.2f}x" if one["mean"] else "",
            f"{one['faster']}, {one['slower']}" if one["mean"] else "",
            f"{one['best'][0]}, {one['best'][1]:.2f}x" if one["best"] else "",
        )
        for one in summary
    ]
    heads = ("Pass", "Fires on", "Rewrites", "Nodes", "Speedup", "Faster, slower", "Most on")
    yield from _table(heads, rows)
    machine = first["environment"]
    yield (
        f"Speedups are geometric means over the models on which the pass fires, on one thread, "
        f"default sessions on both sides: {machine['cpu']['model']}, onnxruntime "
        f"{machine['packages']['onnxruntime']}, {first['date']}.\n"
    )
    yield "## Model by model\n"
    rows = [
        (
            f"`{row['pass']}`",
            row["model"],
            f"{row['rewritten']:,}",
            f"{row['nodes'][0]:,} → {row['nodes'][1]:,}",
            _speedup(row["latency"]),
        )
        for row in fired
    ]
    yield from _table(("Pass", "Model", "Rewrites", "Nodes", "Speedup (95% interval)"), rows)


def _speedup(latency: dict[str, Any]) -> str:
    if latency["status"] != "measured":
        return str(latency["reason"])
    low, high = latency["ci95"]
    return f"{latency['speedup']:.2f}x ({low:.2f} to {high:.2f})"


def api() -> Iterator[str]:
    """What ``onnxpress`` exports."""
    yield "# Python API\n"
    yield "Everything here is imported from `onnxpress` and loads on first use.\n"
    names = [name for name in onnxpress.__all__ if not name.startswith("__")]
    functions = [name for name in names if inspect.isfunction(getattr(onnxpress, name))]
    for title, group in (
        ("Functions", functions),
        ("Classes", [name for name in names if name not in functions]),
    ):
        yield f"## {title}\n"
        for name in group:
            module, _, attribute = onnxpress._HOME[name].partition(":")
            yield f"::: onnxpress.{module}.{attribute or name}\n"


def error_index() -> Iterator[str]:
    """The tree of errors with exit codes."""
    yield "# Errors and exit codes\n"
    yield (
        "A command that fails says what is wrong, where, and what to do about it, and ends with "
        "the exit code of its error. There is no traceback unless `--debug` asks for it. With "
        '`--json` it prints `{"error": {"type", "message", "hint", "exit_code"}}` instead.\n'
    )
    roots = {Exception, errors.OnnxpressError}
    found = [
        (
            f"`{name}`" if cls.__base__ in roots else f"`{name}`, a `{cls.__base__.__name__}`",
            str(cls.exit_code),
            _markdown(inspect.cleandoc(cls.__doc__ or "")),
        )
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, errors.OnnxpressError)
    ]
    yield from _table(("Error", "Exit code", "Meaning"), found)
    yield (
        "A run that is interrupted exits with 130 and leaves no file half written. From Python, "
        "errors are imported from `onnxpress.backends.errors`; each has a `message` and a "
        "`hint`.\n"
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    for at, row in enumerate([head, *rows]):
        cells = [re.sub(r"\s*\n\s*", " ", cell) for cell in row]
        # A bar ends a cell, in code as well, where no backslash can help.
        cells = [re.sub(r"`([^`]*\|[^`]*)`", r"<code>\1</code>", cell) for cell in cells]
        cells = [cell.replace("|", "&#124;") for cell in cells]
        yield f"| {' | '.join(cells)} |"
        if at == 0:
            yield f"|{'---|' * len(cells)}"
    yield ""


def _markdown(docstring: str) -> str:
    """A docstring's marks as Markdown has them."""
    text = re.sub(r":\w+:`~?\.*([^`]+)`", r"`\1`", docstring)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


for page, lines in (
    ("command-line", command_line),
    ("passes", passes),
    ("rewrites", rewrites),
    ("api", api),
    ("errors", error_index),
    *((f"commands/{name}", partial(command_page, name)) for name in COMMANDS),
):
    with mkdocs_gen_files.open(f"reference/{page}.md", "w") as file:
        file.write("\n".join(lines()))
