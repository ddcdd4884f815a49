"""One compilation as the command line asks for it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from . import terminal
from .terminal import Volume

Combine: TypeAlias = Literal[
    "mean",
    "weighted",
    "vote",
    "softmax-mean",
    "geometric",
    "max",
    "median",
    "stack",
    "logistic",
    "detections",
    "none",
    "soup",
]

Layout: TypeAlias = Literal["auto", "stacked", "side-by-side", "mixed"]


@dataclass(frozen=True)
class Job:
    """What ``optimize``, ``quantize``, ``prune`` and ``merge`` are asked to do.

    The fields are the options' names. ``first`` and ``extra`` are pipeline text that a
    command adds before and after the level's pipeline. What is ``None`` comes from the recipe, or
    has the default that :mod:`.run` fills in. Several ``models`` are merged.
    """

    models: tuple[Path, ...]
    output: Path
    first: str = ""
    masks: Path | None = None
    combine: Combine = "mean"
    weights: tuple[float, ...] | None = None
    labels: Path | None = None
    uncertainty: bool = False
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    tolerance: float = 0.0
    nms: float | None = None
    least_score: float | None = None
    boxes: Literal["corners", "center"] = "corners"
    soup: Literal["uniform", "greedy"] = "uniform"
    force_soup: bool = False
    layout: Layout | None = None
    batches: tuple[int, ...] = (1,)
    target: str | None = None
    level: int | None = None
    passes: str | None = None
    extra: str = ""
    recipe: Path | None = None
    data: str | None = None
    dims: dict[str, int] = field(default_factory=dict)
    quantize: str | None = None
    refit: bool | None = None
    max_drop: float | None = None
    metric: str | None = None
    macs: float | None = None
    verify: bool | None = None
    time: bool | None = None
    threads: int = 0
    budget: float | None = None
    seed: int | None = None
    reports: tuple[Path, ...] = ()
    provenance: bool = False
    strict: bool = False
    reproduce: Path | None = None
    json: bool = False
    force: bool = False
    volume: Volume = "normal"


ARGUMENTS: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())
"""What the command line was called with, for the report."""


def start(job: Job) -> None:
    """Do ``job`` and print its report.

    Raises:
        OnnxpressError: Whatever is wrong with the models, the options, the data or the output.
    """
    with terminal.progress(job.volume != "quiet" and not job.json) as progress:
        from . import run  # loads everything there is, which takes a moment

        report = run.run_job(job, progress)
    run.show(report, job)
