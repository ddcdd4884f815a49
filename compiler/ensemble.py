"""Merge models whose combination has first to be fitted to data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..backends.base import Array
from ..backends.data import open_data
from ..backends.errors import DataError, UsageError
from ..backends.ort import session_of, specs_of
from ..passes.ensembles.combine import FITTED, Combine
from ..passes.ensembles.combiners import Linear
from ..passes.ensembles.detections import Suppression
from ..passes.ensembles.fit import fit_stack, fit_weights, targets_of
from ..passes.ensembles.logistic import Logistic, fit_logistic
from ..passes.ensembles.merge import MergeResult, merge
from .records import Progress, silent

_BATCH = 64


def merge_models(
    models: Sequence[ir.Model],
    names: Sequence[str],
    *,
    combine: Combine,
    weights: Sequence[float] | None = None,
    data: str | None = None,
    labels: Path | None = None,
    uncertainty: bool = False,
    inputs: Mapping[str, Mapping[str, str]] | None = None,
    tolerance: float = 0.0,
    suppression: Suppression | None = None,
    progress: Progress = silent,
) -> MergeResult:
    """Merge ``models``, and fit first what is fitted: ``stack``, ``logistic``, weights not given.

    Args:
        models: The members; they stay as they are.
        names: What to call each.
        combine: How their answers become one.
        weights: For ``weighted``; fitted where there are none.
        data: Samples to fit to, as ``--data`` takes them.
        labels: A ``.npy`` file of what the samples should be answered.
        uncertainty: Also answer with how far the members are from each other.
        inputs: By member, which of its inputs is which of the first member's.
        tolerance: How far weights may be from each other to be stored once.
        suppression: For ``detections``: keep only the best of boxes that overlap.
        progress: Told of the stages.

    Raises:
        UsageError: Something has to be fitted and there is nothing to fit it to, or the members
            do not fit each other.
        ModelError: A member is not valid.
        DataError: The data or the labels do not fit the members.
    """
    linear: Linear | Logistic | None = None
    note: list[str] = []
    if combine in FITTED or (combine == "weighted" and weights is None):
        if data is None or labels is None:
            raise UsageError(
                f"{combine!r} is fitted to samples and what they should be answered",
                hint="give both, as in --data samples.npz --labels labels.npy"
                + (", or --weights" if combine == "weighted" else ""),
            )
        progress("fitting the combination", 0, None)
        answers = answers_apart(models, names, data, inputs)
        targets = targets_of(read_labels(labels), answers[0])
        if combine == "stack":
            linear = fit_stack(answers, targets)
        elif combine == "logistic":
            linear = fit_logistic(answers, targets)
        else:
            weights = fit_weights(answers, targets)
            listed = ", ".join(f"{n} {w:.3f}" for n, w in zip(names, weights, strict=True))
            note = [f"the fitted weights are {listed}"]
    merged = merge(
        models,
        names=names,
        combine=combine,
        weights=weights,
        linear=linear,
        uncertainty=uncertainty,
        inputs=inputs,
        tolerance=tolerance,
        suppression=suppression,
    )
    merged.details["notes"] += note
    return merged


def answers_apart(
    models: Sequence[ir.Model],
    names: Sequence[str],
    data: str,
    inputs: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Array]:
    """What each of ``models`` answers to the samples of ``data``, run together, one array each.

    Raises:
        UsageError: They do not take the same inputs, or have more than one output.
        DataError: The data does not fit.
    """
    for model, name in zip(models, names, strict=True):
        if len(model.graph.outputs) != 1:
            raise UsageError(
                f"member {name!r} has {len(model.graph.outputs)} outputs, and what is fitted is "
                "the combination of one",
                hint="drop the others from every member",
            )
    together = merge(models, names=names, combine="none", inputs=inputs).model
    samples = open_data(data, specs_of(together))
    session = session_of(together)
    found: list[list[Array]] = [[] for _ in models]
    for feeds in samples.batches(_BATCH):
        for own, answer in zip(found, session.run(feeds).values(), strict=True):
            own.append(answer)
    return [np.concatenate(own) for own in found]


def read_labels(path: Path) -> Array:
    """What samples should be answered, from a ``.npy`` file.

    Raises:
        DataError: It cannot be read or holds no single array.
    """
    try:
        found: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the labels {path} cannot be read: {error}") from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path} is no single array", hint="np.save('labels.npy', labels)")
    return found
