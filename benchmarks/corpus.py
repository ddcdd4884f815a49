"""The real-model corpus: which models there are, where they lie, and what they can be fed with.

``corpus.toml`` describes it; its head explains the fields. Models live in a cache outside the
checkout: the folder ``$ONNXPRESS_CACHE``, or ``~/.cache/onnxpress/corpus``. Fill it with
``python -m benchmarks fetch`` and ``python -m benchmarks export``. Then::

    for model in load_corpus().values():
        if model.is_fetched:
            for sizes in model.sizes():
                session.run(None, model.feeds(sizes, seed=0))

``model.dims`` maps a dynamic dimension to its sizes, as ``--dim`` takes them, and
``model.inputs`` maps an input to its type, shape and values.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxpress.backends.errors import OnnxpressError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

DESCRIPTION = Path(__file__).with_name("corpus.toml")
SHIPPED = Path(__file__).with_name("models")


class CorpusError(OnnxpressError):
    """A model of the corpus that cannot be described, fetched, verified or exported."""


@dataclass(frozen=True)
class Package:
    """A pinned wheel: pip ``requirement``, ``sha256`` of the file, ``platform`` if it has one."""

    name: str
    requirement: str
    sha256: str
    license: str
    platform: str | None = None


@dataclass(frozen=True)
class InputKind:
    """What an input takes.

    ``dtype`` is NumPy's name; ``shape`` holds numbers and names of ``CorpusModel.dims``;
    ``values`` is one of ``uniform(low, high)``, ``normal(mean, deviation)``,
    ``integers(low, high)`` with ``high`` excluded, ``constant(value)`` and ``mask()``: ones, then
    zeros, with a random length of at least 1 along the last axis.
    """

    dtype: str
    shape: tuple[int | str, ...]
    values: str

    def sample(self, sizes: Mapping[str, int], random: np.random.Generator) -> Array:
        """Draw one array with the dimensions in ``sizes``."""
        shape = tuple(sizes[d] if isinstance(d, str) else d for d in self.shape)
        match = re.fullmatch(r"(\w+)\((.*)\)", self.values)
        kind, text = match.groups() if match else (self.values, "")
        numbers = [float(number) for number in text.split(",") if number]
        match kind, numbers:
            case "uniform", [low, high]:
                drawn = random.uniform(low, high, shape)
            case "normal", [mean, deviation]:
                drawn = random.normal(mean, deviation, shape)
            case "integers", [low, high]:
                drawn = random.integers(int(low), int(high), shape)
            case "constant", [value]:
                drawn = np.full(shape, value)
            case "mask", []:
                lengths = random.integers(1, shape[-1] + 1, (*shape[:-1], 1))
                drawn = np.arange(shape[-1]) < lengths
            case _:
                raise CorpusError(f"{self.values!r} does not say which values an input takes")
        return np.asarray(drawn, dtype=self.dtype)


@dataclass(frozen=True)
class CorpusModel:
    """One model of the corpus.

    ``path`` is where it lies once it is fetched. ``source`` says in words where it comes from;
    just one of ``package`` (with ``file``, its path in the wheel), ``export`` (the script in
    ``benchmarks/exports`` and its arguments) and ``shipped`` is set. ``sha256`` is ``None`` for
    exports and shipped models.
    """

    name: str
    path: Path
    dims: dict[str, list[int]]
    inputs: dict[str, InputKind]
    source: str
    license: str
    sha256: str | None
    tags: tuple[str, ...]
    package: Package | None = None
    file: str = ""
    export: Mapping[str, str] | None = None
    shipped: bool = False

    @property
    def is_fetched(self) -> bool:
        """Whether the file is there; its hash was checked when it was fetched."""
        return self.path.is_file()

    @property
    def get_it(self) -> str:
        """The command that gets the model."""
        return f"python -m benchmarks {'export' if self.export else 'fetch'} --models {self.name}"

    def sizes(self) -> list[dict[str, int]]:
        """The size of every dynamic dimension, run by run; one empty mapping if there are none."""
        runs = max((len(sizes) for sizes in self.dims.values()), default=1)
        return [
            {dim: sizes[run if len(sizes) > 1 else 0] for dim, sizes in self.dims.items()}
            for run in range(runs)
        ]

    def feeds(self, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Array]:
        """One array per input, the same for the same ``sizes`` and ``seed``."""
        random = np.random.default_rng(seed)
        return {name: kind.sample(sizes, random) for name, kind in self.inputs.items()}


def cache_folder() -> Path:
    """Where fetched and exported models lie: ``$ONNXPRESS_CACHE`` or a folder under home."""
    chosen = os.environ.get("ONNXPRESS_CACHE")
    return Path(chosen).expanduser() if chosen else Path("~/.cache/onnxpress/corpus").expanduser()


def load_packages(description: Path = DESCRIPTION) -> dict[str, Package]:
    """Read the pinned wheels."""
    table = tomllib.loads(description.read_text(encoding="utf-8"))
    return {name: Package(name, **entry) for name, entry in table["packages"].items()}


def load_corpus(
    cache: Path | None = None, description: Path = DESCRIPTION
) -> dict[str, CorpusModel]:
    """Read the whole corpus, whether or not it is fetched.

    Raises :class:`CorpusError` where an entry is not well formed.
    """
    packages = load_packages(description)
    table = tomllib.loads(description.read_text(encoding="utf-8"))
    model = partial(_model, packages=packages, cache=cache or cache_folder())
    return {name: model(name, entry) for name, entry in table["models"].items()}


def _model(
    name: str, entry: dict[str, Any], packages: dict[str, Package], cache: Path
) -> CorpusModel:
    dims: dict[str, list[int]] = entry.get("dims", {})
    inputs = {
        key: InputKind(kind["type"], tuple(kind["shape"]), kind["values"])
        for key, kind in entry["inputs"].items()
    }
    _check(name, dims, inputs)
    common: dict[str, Any] = {
        "name": name,
        "dims": dims,
        "inputs": inputs,
        "sha256": entry.get("sha256"),
        "tags": tuple(entry["tags"]),
        "path": cache / f"{name}.onnx",
    }
    if "package" in entry:
        package = packages[entry["package"]]
        common |= {"source": package.requirement, "license": package.license}
        return CorpusModel(**common, package=package, file=entry["file"])
    common["license"] = entry["license"]
    if "export" in entry:
        arguments = ", ".join(value for key, value in entry["export"].items() if key != "script")
        return CorpusModel(**common, source=f"exported here: {arguments}", export=entry["export"])
    common["path"] = SHIPPED / entry["shipped"]
    return CorpusModel(**common, source="ships with the project", shipped=True)


def _check(name: str, dims: dict[str, list[int]], inputs: dict[str, InputKind]) -> None:
    """Refuse sizes that do not pair up and dimensions that only one side knows."""
    lengths = {len(sizes) for sizes in dims.values()} - {1}
    if len(lengths) > 1:
        raise CorpusError(f"{name}: its dims have {sorted(lengths)} sizes, which do not pair up")
    named = {d for kind in inputs.values() for d in kind.shape if isinstance(d, str)}
    if odd := named ^ set(dims):
        raise CorpusError(f"{name}: {sorted(odd)} stand in dims or in a shape, but not in both")
