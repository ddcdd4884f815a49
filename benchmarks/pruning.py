"""The nets that ship, pruned to several fractions of their work: what is left of the answers.

Every row is one model: the command line of onnxpress as a user runs it, with 512 unlabelled digits
to fit to, or another tool. Accuracy is that of the written file in a default session on the 2,000
test digits, which neither training nor pruning saw. Latency is measured at batches of 1 and of 32,
on one thread, against the file that ships.
"""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxpress
from onnxpress.compiler.latency import latency_before_and_after

from . import shipped
from .apart import CallError, apart
from .pruning_peers import PEERS, layout_of
from .zoo.describe import top1
from .zoo.digits import shipped_for_testing

FRACTIONS = {
    "mnist_resnet": (0.57, 0.5, 0.26),
    "mnist_mobilenet": (0.6, 0.5, 0.45),
    "mnist_cnn_0": (0.5, 0.25),
}
"""What of the multiply-accumulates may be left."""

METHODS: dict[str, tuple[str, ...]] = {
    "reconstruction": (),
    "l2": ("--criterion", "l2"),
    "l1": ("--criterion", "l1"),
    "random": ("--criterion", "random"),
    "no fitting": ("--no-reconstruct",),
}
"""What each of ours adds to the command; all but the last fit the layers that lose inputs."""

BATCHES = (1, 32)
SECONDS = 3.0


@dataclass(frozen=True)
class Case:
    """One net, pruned by one method, ours or a peer, to one fraction."""

    net: str
    macs: float
    method: str

    @property
    def key(self) -> dict[str, Any]:
        """What tells its row from all others."""
        return {"net": self.net, "asked": self.macs, "method": self.method}

    def arguments(self, output: str) -> list[str]:
        """The command, as it is typed at the root of the checkout."""
        model = f"benchmarks/models/{self.net}.onnx"
        data = f"benchmarks/data/{shipped.calibration(self.net).name}"
        added = METHODS[self.method]
        given = [] if "--no-reconstruct" in added else ["--data", data]
        return ["onnxpress", "prune", model, "-o", output, "--macs", f"{self.macs:g}",
                *added, *given]  # fmt: skip


def cases(
    methods: Sequence[str] = (*METHODS, *PEERS), nets: Sequence[str] = tuple(FRACTIONS)
) -> Iterator[Case]:
    """Everything that is measured, net by net and fraction by fraction."""
    for net in nets:
        for macs in FRACTIONS[net]:
            for method in methods:
                yield Case(net, macs, method)


def measure(case: Case, limit: float) -> dict[str, Any]:
    """Prune, and look at the file; JSON-ready. ``error`` says why there is none.

    ``seconds`` is the time from the start of the command to its end, its timing of both models
    apart.
    """
    head, peer = dict(case.key), PEERS.get(case.method)
    if peer is None:
        head["command"] = shlex.join(case.arguments("pruned.onnx"))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "pruned.onnx"
        start = time.perf_counter()
        try:
            if peer is None:
                apart(_prune, case, output, limit=limit)
            else:
                apart(peer, case.net, case.macs, output, limit=limit)
            head["seconds"] = round(time.perf_counter() - start, 1)
            return head | apart(look_at, case.net, output, limit=limit)
        except CallError as error:
            return head | {"error": str(error)}


def _prune(case: Case, output: Path) -> None:
    shipped.run([*case.arguments(str(output)), "--threads", "1", "--no-time", "--json"])


def look_at(net: str, output: Path) -> dict[str, Any]:
    """Size, accuracy and speed of the file ``output``, against ``net`` as it ships."""
    digits, path = shipped_for_testing(), shipped.path_of(net)
    before, after = onnxpress.load(path), onnxpress.load(output)
    pixels = digits.pixels(layout_of(net))
    return {
        "macs": [shipped.macs(path), shipped.macs(output)],
        "bytes": [path.stat().st_size, output.stat().st_size],
        "top1": [top1(path, digits), top1(output, digits)],
        "latency": {
            str(batch): latency_before_and_after(
                before, after, {"image": pixels[:batch]}, threads=1, seconds=SECONDS
            )
            for batch in BATCHES
        },
    }
