"""Merge models into one that runs them side by side on shared inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

import onnx_ir as ir

from ...backends.errors import UsageError
from ..lossless.duplicates import merge_nodes
from .align import align, paired
from .combine import FITTED, LEAST_OPSET, UNCERTAINTY_OPSET, Combine, check_combinable, mixture
from .combiners import Linear, add_combiner, add_uncertainty
from .detections import Roles, Suppression, add_detections, roles_of
from .logistic import Logistic
from .members import Member, admit, distinct, member_names, separate, unused
from .share import share_initializers
from .side_by_side import model_of, side_by_side
from .versions import custom_operators, harmonise

__all__ = ["Merge", "MergeResult", "member_names", "merge"]


@dataclass(frozen=True)
class MergeResult:
    """The merged model, and what there is to report, in JSON-ready form."""

    model: ir.Model
    details: dict[str, Any] = field(default_factory=dict)


def merge(
    models: Sequence[ir.Model],
    *,
    names: Sequence[str],
    combine: Combine = "mean",
    weights: Sequence[float] | None = None,
    linear: Linear | Logistic | None = None,
    uncertainty: bool = False,
    inputs: Mapping[str, Mapping[str, str]] | None = None,
    tolerance: float = 0.0,
    suppression: Suppression | None = None,
) -> MergeResult:
    """Merge ``models`` into one; see :class:`Merge`, of which this is the short form."""
    given = None if weights is None else tuple(weights)
    how = Merge(combine, given, linear, uncertainty, inputs or {}, tolerance, suppression)
    return how(models, names=names)


@dataclass(frozen=True)
class Merge:
    """Several models in, one out that gives their combined answer.

    With the members' answers ``y_1 .. y_n`` to the same inputs, for each output::

        mean          (y_1 + .. + y_n) / n
        weighted      w_1 y_1 + .. + w_n y_n, the weights divided by their sum
        vote          the share of members whose largest entry along the last axis is this one
        softmax-mean  the mean of softmax(y_k) along the last axis
        geometric     (y_1 * .. * y_n) ** (1 / n), for answers that are not negative
        max, median   the largest, the middle one, entry by entry
        stack         [y_1 .. y_n] @ weight + bias along the last axis, as ``linear`` gives them
        logistic      softmax([log y_1 .. log y_n] @ weight + bias), as ``linear`` gives them
        detections    boxes, scores and labels of all members one after another
        none          y_1, .., y_n, each under ``member/output``; inputs that do not fit each
                      other stay apart as well

    so that the largest vote share is the majority's class, and the lowest class of equals.

    The members may come from different exporters, with different architectures, operator sets and
    IR versions. Inputs and outputs go together by name, else in order, and keep the first
    member's names. Everything inside gets the member's name in front. Weights stay where they
    are, in memory or in mapped files, and equal ones are stored once; what members compute alike
    from them, such as a backbone, is computed once. Inputs with a default become constants.

    Attributes:
        combine: How the answers become one.
        weights: One finite, non-negative number for each member, not all zero; for ``weighted``.
        linear: What :func:`~.fit.fit_stack` found, for ``stack``, or
            :func:`~.logistic.fit_logistic`, for ``logistic``; both take one output.
        uncertainty: Also answer with ``output/variance`` and, where there are classes,
            ``output/disagreement``: the share of members that do not rank first what most do.
        inputs: By member, which of its inputs is which of the first member's, where neither the
            name nor the order says so.
        tolerance: How far weights may be from each other to be stored, and computed with, once, as
            a part of the largest; 0 shares equal ones alone, and anything else changes answers.
        suppression: For ``detections``: keep only the best of boxes that overlap.
    """

    combine: Combine = "mean"
    weights: tuple[float, ...] | None = None
    linear: Linear | Logistic | None = None
    uncertainty: bool = False
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tolerance: float = 0.0
    suppression: Suppression | None = None

    def __post_init__(self) -> None:
        if self.combine not in get_args(Combine):
            raise UsageError(
                f"there is no way to combine called {self.combine!r}",
                hint=f"choose one of {', '.join(get_args(Combine))}",
            )
        if (self.weights is not None) != (self.combine == "weighted"):
            raise UsageError(
                "weights and 'weighted' need each other",
                hint="give both, as in --combine weighted --weights 0.7,0.3",
            )
        kind = {Linear: "stack", Logistic: "logistic"}.get(type(self.linear), "")
        if kind != (self.combine if self.combine in FITTED else ""):
            raise UsageError(
                "'stack' and 'logistic' are fitted on data, and nothing else is",
                hint="give --data with samples and --labels with what they should be answered",
            )
        if self.uncertainty and self.combine in {"none", "detections"}:
            raise UsageError(f"{self.combine!r} keeps every answer, and has no uncertainty to tell")
        if self.suppression is not None and self.combine != "detections":
            raise UsageError(
                "only detections can be suppressed", hint="add --combine detections, or drop --nms"
            )
        if not 0 <= self.tolerance < 1:
            raise UsageError(f"the tolerance is at least 0 and below 1, not {self.tolerance}")
        for weight in self.weights or ():
            if not (math.isfinite(weight) and weight >= 0):
                raise UsageError(f"a weight has to be finite and not negative, not {weight}")
        if self.weights is not None and sum(self.weights) == 0:
            raise UsageError("at least one weight has to be above zero")

    def __call__(self, models: Sequence[ir.Model], *, names: Sequence[str]) -> MergeResult:
        """Merge ``models``, which stay as they are.

        Args:
            models: At least two.
            names: What to call each, such as :func:`member_names` of their files. Where two are
                the same, a number is added.

        Raises:
            UsageError: There are not as many names or weights as models, or the models do not fit
                each other; the message names the member and says what does not fit.
            ModelError: A member is not valid or cannot be raised to the others' operator sets.
        """
        self._check(len(models), len(names))
        members = admit(models, distinct(names))
        least = LEAST_OPSET[self.combine]
        opsets = harmonise(members, max(least, UNCERTAINTY_OPSET) if self.uncertainty else least)
        alignment = align(members, self.inputs, apart=self.combine == "none")
        answers = self._answers(members)
        roles = roles_of(members, answers) if self.combine == "detections" else None
        notes = [*alignment.notes, *custom_operators(members)]
        if self.combine in {"mean", "weighted"}:
            notes += mixture(members, answers)
        separate(members)
        scope = _scope(members)
        graph = side_by_side(members, alignment, opsets, scope)
        graph.outputs.extend(self._outputs(graph, members, answers, scope, roles))
        shared = share_initializers(graph, self.tolerance)
        # Members that begin alike, such as heads on one backbone, compute that once.
        shared_nodes = sum(1 for _ in merge_nodes(graph))
        details = {
            "combine": self.combine,
            "weights": self._normalised(),
            "inputs": [value.name for value in graph.inputs],
            "outputs": [value.name for value in graph.outputs],
            "members": [{"name": member.name, **member.details} for member in members],
            "shared_initializers": shared,
            "shared_nodes": shared_nodes,
            "notes": notes,
        }
        return MergeResult(model_of(graph, models, members), details)

    def _check(self, models: int, names: int) -> None:
        if models < 2:
            raise UsageError(f"an ensemble has at least two members, not {models}")
        if names != models:
            raise UsageError(f"there are {models} models and {names} names")
        if self.weights is not None and len(self.weights) != models:
            raise UsageError(f"there are {models} models and {len(self.weights)} weights")

    def _normalised(self) -> list[float] | None:
        if self.weights is None:
            return None
        # Divided by the largest first: the sum of very large weights is infinite.
        largest = max(self.weights)
        total = sum(weight / largest for weight in self.weights)
        return [weight / largest / total for weight in self.weights]

    def _answers(self, members: Sequence[Member]) -> list[list[ir.Value]]:
        """The values that belong together: per output those of all members, or each by itself."""
        if self.combine == "none":
            return [[value] for member in members for value in member.outputs]
        first = members[0].outputs
        for member in members:
            if len(member.outputs) != len(first):
                raise UsageError(
                    f"member {member.name!r} has {len(member.outputs)} outputs, "
                    f"{members[0].name!r} has {len(first)}",
                    hint="keep them apart with 'none', or drop outputs from the one with more",
                )
        order = [paired(members[0].output_names, m.output_names) for m in members]
        answers = [
            [member.outputs[places[k]] for member, places in zip(members, order, strict=True)]
            for k in range(len(first))
        ]
        if self.combine == "detections":
            return answers
        check_combinable(members, answers, self.combine)
        if self.combine in FITTED and len(answers) > 1:
            raise UsageError(
                f"{self.combine!r} combines one output, and {members[0].name!r} has {len(answers)}",
                hint="drop the others from every member, or combine by mean",
            )
        return answers

    def _outputs(
        self,
        graph: ir.Graph,
        members: Sequence[Member],
        answers: Sequence[Sequence[ir.Value]],
        scope: str,
        roles: Roles | None,
    ) -> list[ir.Value]:
        if self.combine == "none":
            return [value for values in answers for value in values]
        taken = {value.name or "" for value in graph.inputs}
        if roles is not None:
            names = [unused(name, taken) for name in members[0].output_names]
            return add_detections(graph, answers, roles, names, taken, scope, self.suppression)
        found = []
        for wanted, values in zip(members[0].output_names, answers, strict=True):
            name = unused(wanted, taken)
            found.append(
                add_combiner(
                    graph,
                    values,
                    self.combine,
                    name=name,
                    scope=scope,
                    weights=self._normalised(),
                    linear=self.linear,
                )
            )
            if self.uncertainty:
                found += add_uncertainty(
                    graph,
                    values,
                    name=partial(_beside, name, taken),
                    scope=f"{scope}/{name}/uncertainty",
                )
        return found


def _beside(name: str, taken: set[str], role: str) -> str:
    """A name for the output that tells ``role`` of the output ``name``."""
    return unused(f"{name}/{role}", taken)


def _scope(members: Sequence[Member]) -> str:
    """What goes before the names of what belongs to no member."""
    first = members[0]
    public = [*(value.name or "" for value in first.inputs), *first.output_names]
    taken = {*(member.prefix for member in members), *(name.split("/")[0] for name in public)}
    return unused("ensemble", taken)
