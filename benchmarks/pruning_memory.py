"""Peak memory of pruning by the number of samples: each run is a process of its own."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import onnxpress
from onnxpress.backends.base import Feeds

from . import shipped

COUNTS = (512, 4096)


@dataclass(frozen=True)
class Noisy:
    """So many calibration digits: those that ship over and over, each time with other noise."""

    count: int

    def batches(self, size: int) -> Iterator[Feeds]:
        """Made as they are asked for."""
        with np.load(shipped.calibration("mnist_resnet")) as file:
            images = file["image"]
        for start in range(0, self.count, size):
            rng = np.random.default_rng(start)
            some = images[np.arange(start, min(start + size, self.count)) % len(images)]
            yield {"image": some + rng.normal(0, 0.02, some.shape).astype(np.float32)}


def of_memory(samples: int) -> dict[str, Any]:
    """Megabytes that this process takes at its peak, once the ResNet is half as much work."""
    model = onnxpress.load(shipped.path_of("mnist_resnet"))
    outcome = onnxpress.optimize(
        model,
        f"fold-constants,cleanup,fold-batch-norm,prune-channels{{samples={samples}}},cleanup",
        data=Noisy(samples),
        verify=False,
        time=False,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"macs": outcome.report.macs, "peak_mb": peak / 1024}
