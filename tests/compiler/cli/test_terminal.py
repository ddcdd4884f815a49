"""What a terminal shows that a pipe does not: progress, colour, and lines that wrap by words."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from onnxpress.compiler.cli import terminal
from tests.compiler.cli.runner import ROOT, Command

RESNET = ROOT / "benchmarks" / "models" / "mnist_resnet.onnx"


def on_a_terminal(folder: Path, *arguments: str, columns: int = 100, **environment: str) -> str:
    """What a command writes to a terminal of that width, with all its escapes."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    clean = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "NO_COLOR"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxpress", *arguments],
        cwd=folder,
        env={**clean, "TERM": "xterm-256color", **environment},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # what Linux raises once the other side has closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait() == 0
    return written.decode()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", text)


def test_progress_says_what_is_being_done(tmp_path: Path) -> None:
    written = on_a_terminal(tmp_path, "optimize", str(RESNET), "-o", "out.onnx", "--no-time")
    text = plain(written)
    assert "loading" in text
    assert "simplify-with-onnxsim: rewriting" in text
    assert "\x1b[32m" in written  # colour
    # The bar is gone at the end: what is left on the screen starts with the table.
    assert "\x1b[2K" in written
    left = plain(written[written.rindex("\x1b[2K") :])
    assert left.lstrip().startswith("pass ")


def test_long_lines_wrap_by_words_without_colour(tmp_path: Path) -> None:
    written = on_a_terminal(
        *(tmp_path, "optimize", str(RESNET), "-o", "out.onnx", "--no-time"),
        columns=60,
        NO_COLOR="1",
    )
    shown = written[written.rindex("\x1b[2K") + 4 :]
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)
    lines = [line.rstrip() for line in plain(shown).splitlines()]
    assert all(len(line) <= 60 for line in lines)
    assert "…" not in shown
    start = next(at for at, line in enumerate(lines) if line.startswith("answers"))
    assert lines[start + 1].startswith("         ")
    assert lines[start + 1].strip() == "runs)"


def test_nothing_is_cut_or_wrapped_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    long = "word " * 200
    terminal.warn([long + "[bold] :smile:"])
    printed = capsys.readouterr()
    assert printed.err == f"warning: {long}[bold] :smile:\n"
    assert printed.out == ""


def test_further_lines_of_a_message_stand_below_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal.message(terminal.stderr(), "error", "red", "wrong, at column 1\n  x{\n  ^")
    assert capsys.readouterr().err == "error: wrong, at column 1\n         x{\n         ^\n"


def test_no_progress_where_it_is_not_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    for wanted in (True, False):
        with terminal.progress(wanted) as progress:
            progress("stage", 1, 2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("onnxpress op", "optimize"),
        ("onnxpress passes ins", "insert-qdq"),
        ("onnxpress optimize --target por", "portable"),
        ("onnxpress merge --comb", "--combine"),
    ],
)
def test_completion(typed: str, found: str) -> None:
    script = "from onnxpress.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **os.environ,
            "_ONNXPRESS_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [found], done.stderr


def test_lines_in_a_pipe_end_where_their_text_ends(
    onnxpress: Command, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    for command in (["inspect", models / "mnist_resnet.onnx"], ["passes", "cleanup"], ["--help"]):
        printed = onnxpress(*command).out
        assert printed
        assert [line for line in printed.splitlines() if line != line.rstrip()] == []
