"""What a backend offers: sessions that run a model, and what they say of inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Feeds: TypeAlias = Mapping[str, Array]
"""One array per input name, the whole input of one run."""

ModelSource: TypeAlias = str | Path | bytes
"""A model file, or a serialized ``ModelProto``; only the former may use external data."""

Provider: TypeAlias = Literal["cpu", "cuda"]
OptimizationLevel: TypeAlias = Literal["disabled", "basic", "extended", "layout", "all"]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a session.

    ``shape`` holds an ``int`` for a fixed dimension, a ``str`` for a named one and ``None`` for
    one that is neither; the whole is ``None`` where even the rank is unknown. ``dtype`` is
    ONNX Runtime's spelling without the ``tensor()``: ``float``, ``int64``, ``string``.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class SessionConfig:
    """How a session runs: provider, threads and ONNX Runtime's own optimizations.

    ``level`` is ONNX Runtime's graph-optimization level; ``all`` is its default session.
    ``threads`` is the number of intra-op threads; 0 leaves the choice to ONNX Runtime. ``arena``
    keeps memory between runs, ``mem_pattern`` plans it ahead for sizes seen before.
    ``cuda_graphs`` records all kernels of a run once and replays them: on CUDA, with fixed shapes.
    ``entries`` are session config entries (``onnxruntime_session_options_config_keys.h``).
    """

    provider: Provider = "cpu"
    level: OptimizationLevel = "all"
    threads: int = 0
    prepacking: bool = True
    mem_pattern: bool = True
    arena: bool = True
    cuda_graphs: bool = False
    entries: Mapping[str, str] = field(default_factory=dict)


class Session(Protocol):
    """A model that is loaded and can be run."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """What a run has to be fed with."""
        ...

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """What a run answers with."""
        ...

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run once. Raises :class:`~onnxpress.backends.errors.BackendError` when it fails."""
        ...


class Backend(Protocol):
    """Makes sessions."""

    def session(self, model: ModelSource, config: SessionConfig) -> Session:
        """Load ``model``. Raises :class:`~onnxpress.backends.errors.BackendError`."""
        ...
