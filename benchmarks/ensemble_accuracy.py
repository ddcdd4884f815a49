"""How often merged networks are right, with every way to combine the four CNNs that ship.

What is fitted is fitted on perturbed training digits: the members were trained on those themselves,
are right on 99 of 100 of them, and show on them nothing of where they err. Test digits only test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np

import onnxpress
from onnxpress.backends.base import Array
from onnxpress.backends.ort import session_of
from onnxpress.passes.ensembles.combine import Combine
from onnxpress.passes.ensembles.fit import fit_stack, fit_weights, targets_of
from onnxpress.passes.ensembles.logistic import fit_logistic
from onnxpress.passes.ensembles.merge import Merge

from .corpus import SHIPPED
from .perturbed import perturbed
from .zoo.digits import load, split

NAMES = tuple(f"mnist_cnn_{index}" for index in range(4))
COMBINED: tuple[Combine, ...] = tuple(one for one in get_args(Combine) if one != "none")
COPIES = 2
_BATCH = 500


def measure(digits: Path) -> list[dict[str, Any]]:
    """A row for each member and each combination: its right answers on the test digits."""
    return list(_rows(digits))


def _rows(digits: Path) -> Iterator[dict[str, Any]]:
    training, testing = split(load(digits))
    models = [onnxpress.load(SHIPPED / f"{name}.onnx") for name in NAMES]
    for name, model in zip(NAMES, models, strict=True):
        yield _row(name, _answers(model, testing.pixels("nhwc")), testing.labels)
    fitting = perturbed(training, COPIES)
    apart = [_answers(model, fitting.pixels("nhwc")) for model in models]
    targets = targets_of(fitting.labels, apart[0])
    given: dict[str, dict[str, Any]] = {
        "weighted": {"weights": fit_weights(apart, targets)},
        "stack": {"linear": fit_stack(apart, targets)},
        "logistic": {"linear": fit_logistic(apart, targets)},
    }
    for combine in COMBINED:
        merged = Merge(combine, **given.get(combine, {}))(models, names=NAMES).model
        yield _row(combine, _answers(merged, testing.pixels("nhwc")), testing.labels)


def _answers(model: Any, images: Array) -> Array:
    session = session_of(model)
    starts = range(0, len(images), _BATCH)
    found = [session.run({"image": images[at : at + _BATCH]}) for at in starts]
    return np.concatenate([next(iter(answers.values())) for answers in found])


def _row(name: str, answers: Array, labels: Array) -> dict[str, Any]:
    right = int((answers.argmax(-1) == labels).sum())
    return {"model": name, "right": right, "of": len(labels), "top1": right / len(labels)}
