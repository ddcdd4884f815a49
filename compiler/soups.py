"""Cook a soup: average weights, measure normalization anew, and taste it before it is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from ..backends.base import Array, Feeds, Session
from ..backends.data import Data
from ..backends.errors import DataError, UsageError
from ..backends.ort import session_of
from ..backends.targets import Target
from ..passes.ensembles.merge import MergeResult
from ..passes.ensembles.soup import average, match_weights, reestimate_batch_norm
from .manager import PassManager
from .pipeline import preset

Recipe: TypeAlias = Literal["uniform", "greedy"]

_Made: TypeAlias = Callable[[Sequence[float]], tuple[ir.Model, float]]

_BATCH: Final = 64
_WORSE: Final = 0.01
"""How much lower than the worst member's a soup's score may be: models in one basin lose nothing
by being averaged, models in different ones nearly all."""


@dataclass(frozen=True)
class Kitchen:
    """What a soup is made and judged with.

    Attributes:
        data: Samples; without them nothing can be measured.
        labels: What they should be answered: class numbers or answers. Without them the members'
            own mean answer takes their place.
        forced: Serve it whatever it tastes like.
    """

    data: Data | None = None
    labels: Array | None = None
    forced: bool = False


def cook(
    models: Sequence[ir.Model],
    names: Sequence[str],
    *,
    recipe: Recipe = "uniform",
    weights: Sequence[float] | None = None,
    kitchen: Kitchen = Kitchen(),
) -> MergeResult:
    """One model with the averaged weights of ``models``, which stay as they are.

    ``greedy`` starts from the best member and takes in each other one, best first, if the score
    does not fall (Wortsman et al., 2022).

    Raises:
        UsageError: The members are not of one architecture, or their average is worse than each of
            them: they do not lie in one basin of the loss.
        DataError: The samples or labels do not fit.
    """
    models, groups = _matched(models, names)
    shares = _shares(weights, len(models))
    if kitchen.data is None:
        if not kitchen.forced:
            raise UsageError(
                "whether a soup is any good shows only on samples, and there are none",
                hint="give --data, and --labels if you can; --force-soup averages unseen",
            )
        found = average(models, groups, shares)
        return MergeResult(found, {"combine": "soup", "weights": shares, "notes": []})
    answers = [_answers(model, kitchen.data) for model in models]
    if kitchen.labels is None:
        kitchen = replace(kitchen, labels=_own_labels(answers))
    scores = [_score(answer, kitchen.labels) for answer in answers]

    def made(shares: Sequence[float]) -> tuple[ir.Model, float]:
        soup = average(models, groups, shares)
        reestimate_batch_norm(soup, _session, lambda: _batches(kitchen))
        return soup, _score(_answers(soup, kitchen.data), kitchen.labels)

    if recipe == "greedy":
        soup, score, shares = _greedy(made, scores)
    else:
        soup, score = made(shares)
    listed = ", ".join(f"{name} {one:.2%}" for name, one in zip(names, scores, strict=True))
    told = f"the soup scores {score:.2%} on the samples, the members {listed}"
    if score < min(scores) - _WORSE and not kitchen.forced:
        raise UsageError(
            f"the members do not share a basin: {told}",
            hint="average models that were trained on from one and the same; combine these by "
            "mean, or take the soup as it is with --force-soup",
        )
    details: dict[str, Any] = {"combine": "soup", "weights": shares, "score": score}
    return MergeResult(soup, details | {"scores": scores, "notes": [told]})


def _greedy(made: _Made, scores: Sequence[float]) -> tuple[ir.Model, float, list[float]]:
    order = sorted(range(len(scores)), key=lambda at: -scores[at])
    taken = order[:1]
    soup, score = made(_uniform(taken, len(scores)))
    for at in order[1:]:
        larger, new = made(_uniform([*taken, at], len(scores)))
        if new >= score:
            soup, score, taken = larger, new, [*taken, at]
    return soup, score, _uniform(taken, len(scores))


def _uniform(taken: Sequence[int], count: int) -> list[float]:
    return [1 / len(taken) if at in taken else 0.0 for at in range(count)]


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1 / count] * count
    if len(weights) != count:
        raise UsageError(f"there are {count} models and {len(weights)} weights")
    if not all(np.isfinite(weights)) or sum(weights) <= 0:
        raise UsageError("the weights of a soup have to be finite, with a sum above zero")
    return [weight / sum(weights) for weight in weights]


def _matched(
    models: Sequence[ir.Model], names: Sequence[str]
) -> tuple[Sequence[ir.Model], list[tuple[ir.Value, ...]]]:
    """The models as they are, or where these differ without exporters' noise, and their weights."""
    try:
        return models, match_weights(models, names)
    except UsageError as first:
        plain = [PassManager(preset(1, Target("portable"))).run(model).model for model in models]
        try:
            return plain, match_weights(plain, names)
        except UsageError:
            raise first from None


def _session(model: ir.Model, outputs: Sequence[str]) -> Session:
    return session_of(model, outputs=outputs)


def _batches(kitchen: Kitchen) -> Iterator[Feeds]:
    return iter(()) if kitchen.data is None else kitchen.data.batches(_BATCH)


def _answers(model: ir.Model, data: Data | None) -> Array:
    """The first output for all samples; inputs go together in order."""
    session = session_of(model)
    first = session.outputs[0].name
    found = []
    for feeds in () if data is None else data.batches(_BATCH):
        own = {spec.name: array for spec, array in zip(session.inputs, feeds.values(), strict=True)}
        found.append(session.run(own)[first])
    if not found:
        raise DataError("the data holds no samples")
    return np.concatenate(found)


def _own_labels(answers: Sequence[Array]) -> Array:
    mean = np.mean([answer.astype(np.float64) for answer in answers], axis=0)
    return _decision(mean)


def _decision(answer: Array) -> Array:
    """The class of each sample; of a single number, whether it is above one half."""
    if answer.ndim > 1 and answer.shape[-1] > 1:
        chosen: Array = answer.argmax(-1)
        return chosen
    return (answer.reshape(len(answer), -1)[:, 0] > 0.5).astype(np.int64)


def _score(answer: Array, labels: Array | None) -> float:
    """The share of right decisions; where the labels are answers, one minus the relative error.

    Raises:
        DataError: The labels do not fit.
    """
    if labels is None or not np.isfinite(answer).all():
        return 0.0
    if labels.dtype.kind == "f" and labels.shape == answer.shape:
        error = np.mean((answer.astype(np.float64) - labels) ** 2)
        return float(1 - error / max(float(np.var(labels)), 1e-12))
    decided = _decision(answer)
    if labels.shape != decided.shape:
        raise DataError(
            f"there are labels of shape {list(labels.shape)} for decisions of shape "
            f"{list(decided.shape)}",
            hint="give one class number a sample, or one answer in the shape of the output",
        )
    return float(np.mean(decided == labels))
