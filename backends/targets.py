"""The machines a model can be compiled for, and what ONNX Runtime can do on each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .base import Provider

TargetName: TypeAlias = Literal["portable", "cpu", "cuda"]


@dataclass(frozen=True)
class Target:
    """Where the result will run.

    ``portable`` is any ONNX runtime: standard operators only. ``cpu`` and ``cuda`` are ONNX
    Runtime's execution providers, which also run operators of ``com.microsoft``. ``features``
    are CPU features by archspec's names (``avx2``, ``avx512_vnni``, ``avx_vnni``, ``amx_int8``).
    """

    name: TargetName = "cpu"
    features: frozenset[str] = field(default_factory=frozenset)

    @property
    def provider(self) -> Provider:
        """The execution provider that runs and times models for this target."""
        return "cuda" if self.name == "cuda" else "cpu"

    @property
    def contrib_operators(self) -> bool:
        """Whether the result may use operators of the ``com.microsoft`` domain."""
        return self.name != "portable"

    @property
    def channel_block(self) -> int:
        """Channels in a block of the layout that convolutions run on (NCHWc), 0 without blocks.

        What ONNX Runtime's ``MlasNchwcGetBlockSize`` answers: 8 with AVX2 alone, else 16.
        """
        if self.name != "cpu":
            return 0
        return 8 if "avx2" in self.features and "avx512f" not in self.features else 16
