"""How long the command line takes to answer ``--help``, against the smallest typer script."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SMALLEST = '''import typer

app = typer.Typer()


@app.command()
def hello(name: str) -> None:
    """Greet somebody."""
    print(name)


app()
'''


@dataclass(frozen=True)
class Startup:
    """Median seconds of whole processes, run in turns."""

    onnxpress: float
    smallest: float

    @property
    def ratio(self) -> float:
        """Ours over the smallest."""
        return self.onnxpress / self.smallest


def measure(runs: int = 15) -> Startup:
    """Time ``onnxpress --help`` and the ``--help`` of a typer script of one command."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "smallest.py"
        script.write_text(SMALLEST, encoding="utf-8")
        commands = ([sys.executable, "-m", "onnxpress"], [sys.executable, str(script)])
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(runs + 1):
            for command, spent in zip(commands, times, strict=True):
                started = time.perf_counter()
                subprocess.run([*command, "--help"], check=True, capture_output=True)
                spent.append(time.perf_counter() - started)
    ours, smallest = (statistics.median(spent[1:]) for spent in times)
    return Startup(ours, smallest)
