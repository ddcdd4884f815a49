"""Every command and snippet that the README and the docs show, run as shown."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.main import get_command

from onnxpress.compiler.cli.main import app

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w*)[ \t]*(.*?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Snippet:
    language: str
    title: str
    text: str


def snippets(page: Path) -> list[Snippet]:
    found = []
    for language, info, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        title = _TITLE.search(info)
        found.append(Snippet(language, title[1] if title else "", text))
    return found


def environment() -> dict[str, str]:
    scripts = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def joined(text: str) -> str:
    """``text`` with commands that go over several lines on one."""
    return re.sub(r"\\\n\s*", "", text)


def masked(text: str) -> str:
    """Output without what differs from run to run: numbers, verdicts, and where lines wrap."""
    text = re.sub(r"faster|slower|no significant difference", "VERDICT", text)
    return " ".join(re.sub(r"[+-]?\d[\d.,e+-]*", "#", text).split())


def commands(text: str) -> list[str]:
    """The lines of a shell block; those that install or test the whole are run by CI."""
    lines = [line.strip() for line in joined(text).splitlines()]
    return [
        line.removeprefix("pip install . && ")
        for line in lines
        if line
        and not line.startswith("#")
        and (line.startswith("pip install . && ") or not line.startswith(("pip ", "pytest")))
    ]


def test_pages_are_found() -> None:
    assert len(PAGES) > 10


def test_every_command_has_a_page_in_the_navigation() -> None:
    pages = re.findall(r"reference/commands/([\w-]+)\.md", (ROOT / "mkdocs.yml").read_text("utf-8"))
    assert pages == list(get_command(app).commands)  # type: ignore[attr-defined]


def test_commands_may_go_over_several_lines() -> None:
    text = "# x\npip install y\na \\\n    b\npip install . && c\n"
    assert commands(text) == ["a b", "c"]


def test_what_is_masked_is_what_differs_from_run_to_run() -> None:
    first = "latency  faster: 0.376 ms → 1.2e-05 ms, 2.03x (-31.5%), default\n   threads"
    second = "latency  slower: 1,234 ms → 1 ms, 12x (+3%), default threads"
    assert masked(first) == masked(second)
    assert masked(first) != masked(first.replace("default", "own"))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_runs(page: Path, tmp_path: Path) -> None:
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    for snippet in snippets(page):
        if snippet.title:
            (tmp_path / snippet.title).write_text(snippet.text, encoding="utf-8")
        elif snippet.language == "python":
            run([sys.executable, "-W", "error", "-c", snippet.text], tmp_path)
        elif snippet.language == "bash":
            for command in commands(snippet.text):
                run(["bash", "-euc", command], tmp_path)
        elif snippet.text.startswith("$ "):
            command, _, shown = joined(snippet.text[2:]).partition("\n")
            assert masked(run(["bash", "-euc", command], tmp_path)) == masked(shown), command


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("title", "needs"), [("torch", "torch"), ("keras", "tensorflow"), ("pruned", "onnx2torch")]
)
def test_what_the_page_on_frameworks_shows_runs(title: str, needs: str, tmp_path: Path) -> None:
    pytest.importorskip(needs)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    page = ROOT / "docs" / "how-to" / "frameworks.md"
    (shown,) = [one for one in snippets(page) if one.title == f"from_{title}.py"]
    assert run([sys.executable, "-c", shown.text], tmp_path).endswith("ok\n")
    assert (tmp_path / f"from_{title}.onnx").is_file()
