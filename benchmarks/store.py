"""Result files: one JSON object per suite in ``benchmarks/results``, with the machine it ran on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onnxpress.backends.environment import environment

from .corpus import CorpusError

CORPUS = Path(__file__).with_name("corpus.toml")
RESULTS = Path(__file__).with_name("results")
SUITES = ("compile-time", "lossless", "shipped", "transcript")
"""The result files that there are, by the command that writes them."""

_INTEGERS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""CPU features that decide how much int8 gains."""


def path_of(suite: str, folder: Path = RESULTS) -> Path:
    """The file that holds the results of ``suite``."""
    return folder / f"{suite.replace('-', '_')}.json"


def save(
    suite: str, body: dict[str, Any], *, packages: Iterable[str] = (), folder: Path = RESULTS
) -> Path:
    """Write the results of ``suite`` with the day, the machine and the versions of all software.

    ``commit`` is that of this repository, ``corpus`` the digest of ``corpus.toml``, which holds
    the digests of the models.

    ``packages`` names distributions that took part and are not among those that
    :func:`~onnxpress.backends.environment.environment` lists.
    """
    machine = environment()
    machine["packages"] |= {name: importlib.metadata.version(name) for name in packages}
    found = {
        "suite": suite,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
        "corpus": hashlib.sha256(CORPUS.read_bytes()).hexdigest(),
        "environment": machine,
    }
    path = path_of(suite, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found | body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def commit(root: Path = RESULTS.parent) -> str | None:
    """The commit that is checked out, with ``+`` behind it where files differ from it.

    ``None`` outside of a checkout.
    """
    answers = []
    for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *command], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        answers.append(done.stdout.strip())
    return answers[0] + ("+" if answers[1] else "")


def kept(suite: str, keys: tuple[str, str], folder: Path = RESULTS) -> dict[Any, dict[str, Any]]:
    """The rows of ``suite`` by the values of ``keys``, to go on with, if there are any."""
    try:
        rows = load(suite, folder)["rows"]
    except CorpusError:
        return {}
    return {(row[keys[0]], row[keys[1]]): row for row in rows}


def load(suite: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Read the results of ``suite``.

    Raises :class:`~benchmarks.corpus.CorpusError` where there are none.
    """
    path = path_of(suite, folder)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CorpusError(
            f"there are no results of {suite}", hint=f"python -m benchmarks {suite}"
        ) from error
    return found


def machine(results: dict[str, Any]) -> str:
    """The machine and the main versions behind ``results``, in a sentence without a full stop."""
    found = results["environment"]
    cpu, packages = found["cpu"], found["packages"]
    integers = [name for name in cpu["features"] if name in _INTEGERS]
    return (
        f"{cpu['model']} ({', '.join([cpu['microarchitecture'], *(integers or ['no VNNI'])])}), "
        f"{cpu['quota'] or cpu['threads']:g} CPUs, Python {found['python']}, "
        f"onnxruntime {packages['onnxruntime']}, onnx {packages['onnx']}, "
        f"onnxsim {packages['onnxsim']}, {results['date']}"
    )
