"""The measured parts of the READMEs, written from the result files and from nothing else.

A page marks each part by a pair of comments, ``<!-- measured: NAME -->`` and ``<!-- end -->``;
what stands between them is replaced.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import store
from .corpus import CorpusError
from .tables import PARTS, Results

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
COMMAND = "onnxpress optimize benchmarks/models/mnist_resnet.onnx -o mnist_resnet.opt.onnx"
_PART = re.compile(r"(<!-- measured: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str, load: Callable[[str], Results] = store.load) -> str:
    """``page`` with its measured parts written anew.

    Raises :class:`~benchmarks.corpus.CorpusError` for a part that does not exist, or without
    results.
    """

    def part(found: re.Match[str]) -> str:
        if found[2] not in PARTS:
            raise CorpusError(f"there is no measured part {found[2]!r}")
        suites, write = PARTS[found[2]]
        return f"{found[1]}{write(*map(load, suites))}\n{found[3]}"

    return _PART.sub(part, page)


def capture(command: str = COMMAND) -> Results:
    """Run ``command`` as at the root of the checkout, and keep what it prints."""
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    environment["PATH"] = f"{scripts}{os.pathsep}{environment['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "benchmarks").symlink_to(ROOT / "benchmarks")
        done = subprocess.run(
            shlex.split(command),
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        raise CorpusError(f"{command} ended with {done.returncode}: {done.stdout}")
    return {"command": command, "output": [line.rstrip() for line in done.stdout.splitlines()]}
