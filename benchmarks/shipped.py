"""What each family of rewrites does to the models that ship: size, cost, accuracy, latency.

Every row is one command of the command line, run as a user runs it. Latency is what the command
itself measures, one image at a time, on one thread, in default sessions; accuracy is the share of
the 2,000 test digits, which calibration never saw, that the written file names rightly, in a
default session as well.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import onnxpress
from onnxpress.backends.base import Feeds, SessionConfig
from onnxpress.backends.ort import OrtSession, session_of
from onnxpress.backends.timing import compare_latency
from onnxpress.passes.analysis import cost

from .apart import row_apart
from .corpus import SHIPPED, CorpusError
from .zoo.describe import NETWORKS, top1
from .zoo.digits import DATA, Digits, shipped_for_testing

CNNS = tuple(f"mnist_cnn_{seed}" for seed in range(4))
HALF = ("--macs", "0.5")
INT8 = ("--quantize", "int8")
ALL_IN_A_ROW = "fold-constants,cleanup,fold-batch-norm,prune-channels{macs=0.5},cleanup,insert-qdq"


@dataclass(frozen=True)
class Variant:
    """One command on one net, or on several that it merges."""

    nets: tuple[str, ...]
    name: str
    command: str
    options: tuple[str, ...]
    needs_data: bool

    @property
    def net(self) -> str:
        """What the table calls the model."""
        return self.nets[0] if len(self.nets) == 1 else "four CNNs"

    def arguments(self, output: str) -> list[str]:
        """The command, from ``onnxpress`` on, as it is typed at the root of the checkout."""
        inputs = [f"benchmarks/models/{net}.onnx" for net in self.nets]
        data = ["--data", f"benchmarks/data/{calibration(self.nets[0]).name}"]
        given = [*self.options, *(data if self.needs_data else [])]
        return ["onnxpress", self.command, *inputs, "-o", output, *given]


def variants() -> Iterator[Variant]:
    """All that is measured, net by net."""
    for net in NETWORKS:
        yield Variant((net,), "optimized", "optimize", (), needs_data=False)
        yield Variant((net,), "int8", "quantize", (), needs_data=True)
        yield Variant((net,), "half the MACs", "prune", HALF, needs_data=True)
        yield Variant((net,), "half the MACs, int8", "optimize", (*HALF, *INT8), needs_data=True)
    yield Variant(CNNS, "merged by mean", "merge", (), needs_data=False)
    everything = ("--passes", ALL_IN_A_ROW)
    yield Variant(CNNS, "merged, half the MACs, int8", "merge", everything, needs_data=True)


def calibration(net: str) -> Path:
    """The calibration digits in the layout that ``net`` takes."""
    return DATA / f"mnist_calibration_{'nhwc' if net in CNNS else 'nchw'}.npz"


def measure(variant: Variant, digits: Digits, baseline: float) -> dict[str, Any]:
    """Run the command of ``variant`` and look at the file that it writes; JSON-ready.

    ``baseline`` is the accuracy to compare with, that of the best net. Raises
    :class:`~benchmarks.corpus.CorpusError` where the command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.onnx"
        report = run([*variant.arguments(str(output)), "--threads", "1", "--json"])
        several = len(variant.nets) > 1
        return {
            "net": variant.net,
            "variant": variant.name,
            "command": shlex.join(variant.arguments("out.onnx")),
            "latency": against_apart(variant.nets, output) if several else report["latency"],
            "bytes": report["bytes"],
            "macs": [sum(map(macs, map(path_of, variant.nets))), macs(output)],
            "nodes": report["nodes"],
            "top1": [baseline, top1(output, digits)],
            "verified": report["verified"]["status"],
            "sqnr_db": report["verified"].get("sqnr_db"),
            "quarantined": [
                one["name"] for one in report["passes"] if one["status"] == "quarantined"
            ],
        }


def macs(path: Path) -> int | None:
    """Multiply-accumulates for one image of the model at ``path``."""
    return cost.macs(onnxpress.load(path), {"batch": 1})


def path_of(net: str) -> Path:
    """The file of a net that ships."""
    return SHIPPED / f"{net}.onnx"


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a command of onnxpress at the root of the checkout; the JSON object that it prints."""
    command = [sys.executable, "-m", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=SHIPPED.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip())[-500:]
        raise CorpusError(f"exit code {done.returncode}: {told}", hint=shlex.join(arguments))
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def against_apart(nets: Sequence[str], merged: Path, seconds: float = 4.0) -> dict[str, Any]:
    """Time the file ``merged`` against the ``nets`` run one after another on the same image."""
    with np.load(calibration(nets[0])) as data:
        feeds: Feeds = {name: data[name][:1] for name in data.files}
    config = SessionConfig(threads=1)

    def bound(path: Path) -> Any:
        session: OrtSession = session_of(path, config)
        return session.bind(feeds)

    members = [bound(path_of(net)) for net in nets]

    def one_by_one() -> None:
        for member in members:
            member()

    timings = compare_latency([one_by_one, bound(merged)], ("apart", "merged"), seconds=seconds)
    pair = timings.pair(0, 1)
    before, after = timings.latencies
    return {
        "status": "measured",
        "before": {"median_ms": before.median_ms},
        "after": {"median_ms": after.median_ms},
        "speedup": pair.speedup,
        "ci95": list(pair.ci95),
        "verdict": pair.verdict,
        "threads": 1,
    }


def measured(variant: Variant, limit: float) -> dict[str, Any]:
    """The row of ``variant``, from a process of its own; where something failed, its ``error``."""
    return row_apart(_measured, variant, limit=limit)


def _measured(variant: Variant) -> dict[str, Any]:
    digits = shipped_for_testing()
    return measure(variant, digits, max(top1(path_of(net), digits) for net in variant.nets))
