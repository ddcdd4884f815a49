"""How to compile, apart from which passes to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..backends.data import Data
from ..backends.targets import Target
from .quality import Demand
from .records import Hook, Progress, silent

BUDGET: Final = 120.0
"""Seconds that level 3 has for settling choices by measuring, unless told otherwise."""


@dataclass(frozen=True)
class Settings:
    """How to compile, apart from which passes to run.

    Attributes:
        target: Where the result will run.
        data: Samples, for passes that calibrate, for verification and for timing.
        dims: Sizes of named dynamic dimensions.
        seed: The root of every random choice.
        verify: Check answers after every step and at the end.
        time: Measure latency before and after, and withdraw what makes the result slower.
        profile: Measure where the time of each operator goes, before and after.
        threads: Intra-op threads for timing; 0 is ONNX Runtime's choice.
        budget: Seconds for settling by measuring what passes and sessions leave open, which is
            what level 3 does; ``None`` settles nothing.
        demand: How much worse answers may get by quantization; ``None`` leaves that open.
        strict: Raise at the first wrong step instead of undoing it.
        reproduce: A folder for models on which a step was wrong.
        hooks: Called around every step.
        progress: Called as ``progress(stage, done, total)``.
    """

    target: Target = field(default_factory=Target)
    data: Data | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    verify: bool = True
    time: bool = False
    profile: bool = False
    threads: int = 0
    budget: float | None = None
    demand: Demand | None = None
    strict: bool = False
    reproduce: Path | None = None
    hooks: Sequence[Hook] = ()
    progress: Progress = silent
