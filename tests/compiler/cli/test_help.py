"""Help pages name everything, show examples, and stay whole on a narrow terminal."""

from __future__ import annotations

import re
import shlex

import pytest

from onnxpress.compiler.cli.main import app
from tests.compiler.cli.runner import Command

COMMANDS = [
    *("optimize", "quantize", "prune", "merge", "inspect", "compare", "bench", "bisect"),
    *("passes", "doctor"),
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", [60, 100])
def test_a_page_fits_the_terminal(
    onnxpress: Command, monkeypatch: pytest.MonkeyPatch, command: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = onnxpress(command, "--help")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    examples = lines[lines.index("Examples:") + 1 :]
    examples = examples[: examples.index("")]
    assert all(line.startswith(f"  onnxpress {command}") for line in examples)
    for line in lines:
        assert line in examples or len(line) <= columns
    assert not re.search(r"…|\[/|\[bold|<bool>|``|\[default: \(", done.out)
    assert any(line.startswith("  -h, --help ") for line in lines)
    assert any(line.startswith("  --json ") for line in lines)
    assert any(line.startswith("  -q, --quiet ") for line in lines)
    assert any(line.startswith("  -v, --verbose ") for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_commands_that_the_parser_takes(
    onnxpress: Command, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with files fail for want of them (exit code 3), not for their options (2)."""
    examples = [
        shlex.split(line)[1:]
        for line in onnxpress(command, "--help").out.splitlines()
        if line.startswith("  onnxpress ")
    ]
    assert examples
    for example in examples:
        if command in {"passes", "doctor"}:
            assert onnxpress(*example, "--quiet").code == 0
        elif "mine:Pass" not in " ".join(example):
            assert onnxpress(*example).code == 3, example


def test_usage_names_what_has_to_be_given(onnxpress: Command) -> None:
    assert onnxpress("prune", "-h").out.startswith(
        "Usage: onnxpress prune MODEL -o FILE [OPTIONS]\n"
    )
    assert onnxpress("passes", "-h").out.startswith("Usage: onnxpress passes [NAME] [OPTIONS]\n")


def test_choices_and_switches_are_written_out(onnxpress: Command) -> None:
    out = onnxpress("prune", "--help").out
    for text in (
        "--scope global|uniform",
        "--[no-]reconstruct",
        "--target portable|cpu|cuda",
    ):
        assert re.search(rf"  {re.escape(text)}\s", out)


def test_every_option_says_what_it_is_for() -> None:
    from typer.main import get_command

    group = get_command(app)
    for name in COMMANDS:
        for parameter in group.commands[name].params:  # type: ignore[attr-defined]
            assert parameter.help, (name, parameter.name)


def test_colour_is_left_out_where_it_is_not_wanted(
    onnxpress: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxpress.compiler.cli import help as pages

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert pages._styled("x", bold=True) == "\x1b[1mx\x1b[0m"
    assert "\x1b" not in onnxpress("optimize", "--help").out  # no terminal
    monkeypatch.setenv("NO_COLOR", "1")
    assert pages._styled("x", bold=True) == "x"


def test_the_program_without_a_command_shows_its_page(onnxpress: Command) -> None:
    done = onnxpress()
    assert done.code == 0
    assert done.out == onnxpress("--help").out
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z].*\.$", done.out, re.MULTILINE), command
