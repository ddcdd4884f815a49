"""Merge models into one that runs them side by side on shared inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import onnx_ir as ir

from ...backends.errors import UsageError
from .align import Alignment, Layout, align, paired
from .combine import LEAST_OPSET, Combine, add_combiner, check_combinable, mixture
from .dims import renamed
from .members import Member, admit, distinct, member_names, separate, unused
from .share import share_initializers
from .versions import harmonise

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
) -> MergeResult:
    """Merge ``models`` into one; see :class:`Merge`, of which this is the short form."""
    return Merge(combine, None if weights is None else tuple(weights))(models, names=names)


@dataclass(frozen=True)
class Merge:
    """Several models in, one out that gives their combined answer.

    With the members' answers ``y_1 .. y_n`` to the same inputs, for each output::

        mean      (y_1 + .. + y_n) / n
        weighted  w_1 y_1 + .. + w_n y_n, the weights divided by their sum
        vote      the share of members whose largest entry along the last axis is this one
        none      y_1, .., y_n, each under ``member/output``

    so that the largest vote share is the majority's class, and the lowest class of equals.

    The members may come from different exporters, with different architectures, operator sets and
    IR versions. Inputs and outputs go together by name, else in order, and keep the first
    member's names. Everything inside gets the member's name in front. Weights stay where they
    are, in memory or in mapped files, and equal ones are stored once. Inputs with a default become
    constants.

    Attributes:
        combine: How the answers become one.
        weights: One finite, non-negative number for each member, not all zero; for ``weighted``.
    """

    combine: Combine = "mean"
    weights: tuple[float, ...] | None = None

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
        opsets = harmonise(members, LEAST_OPSET[self.combine])
        alignment = align(members)
        answers = self._answers(members)
        notes = alignment.notes + (
            mixture(members, answers) if self.combine in {"mean", "weighted"} else []
        )
        separate(members)
        scope = _scope(members)
        graph = _side_by_side(members, alignment, opsets, scope)
        graph.outputs.extend(self._outputs(graph, members, answers, scope))
        shared = share_initializers(graph)
        details = {
            "combine": self.combine,
            "weights": self._normalised(),
            "inputs": [value.name for value in graph.inputs],
            "outputs": [value.name for value in graph.outputs],
            "members": [{"name": member.name, **member.details} for member in members],
            "shared_initializers": shared,
            "notes": notes,
        }
        return MergeResult(_model(graph, models, members), details)

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
        check_combinable(members, answers, self.combine)
        return answers

    def _outputs(
        self,
        graph: ir.Graph,
        members: Sequence[Member],
        answers: Sequence[Sequence[ir.Value]],
        scope: str,
    ) -> list[ir.Value]:
        if self.combine == "none":
            return [value for values in answers for value in values]
        taken = {value.name or "" for value in graph.inputs}
        return [
            add_combiner(
                graph,
                values,
                self._normalised(),
                vote=self.combine == "vote",
                name=unused(name, taken),
                scope=scope,
            )
            for name, values in zip(members[0].output_names, answers, strict=True)
        ]


def _scope(members: Sequence[Member]) -> str:
    """What goes before the names of what belongs to no member."""
    first = members[0]
    public = [*(value.name or "" for value in first.inputs), *first.output_names]
    taken = {*(member.prefix for member in members), *(name.split("/")[0] for name in public)}
    return unused("ensemble", taken)


def _side_by_side(
    members: Sequence[Member], alignment: Alignment, opsets: dict[str, int], scope: str
) -> ir.Graph:
    """One graph of all members' nodes, without outputs; the members are left empty."""
    inputs = [
        ir.Value(
            name=own.name,
            type=own.type,
            shape=shape,
            doc_string=own.doc_string,
            metadata_props=dict(own.metadata_props),
        )
        for own, shape in zip(members[0].inputs, alignment.shapes, strict=True)
    ]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports=opsets, name="ensemble")
    layouts: dict[tuple[int, Layout], ir.Value] = {
        (place, ()): value for place, value in enumerate(inputs)
    }
    for member, links, dims in zip(members, alignment.links, alignment.dims, strict=True):
        for value in member.values():
            value.shape = renamed(value.shape, dims)
        own = member.model.graph
        own.outputs.clear()
        own.inputs.clear()
        taken_from = member.details["inputs"] = {}
        for link in links:
            name = inputs[link.shared].name
            layout = {"shared": name, "transposed": list(link.layout)}
            taken_from[link.own.name] = layout if link.layout else name
            key = link.shared, link.layout
            if key not in layouts:
                layouts[key] = _transposed(graph, inputs[link.shared], link.layout, scope)
            link.own.replace_all_uses_with(layouts[key])
        initializers = list(own.initializers.values())
        own.initializers.clear()
        for value in initializers:
            graph.register_initializer(value)
        nodes = list(own)
        own.remove(nodes)
        graph.extend(nodes)
    return graph


def _transposed(graph: ir.Graph, value: ir.Value, layout: Sequence[int], scope: str) -> ir.Value:
    name = f"{scope}/{value.name}/{'_'.join(map(str, layout))}"
    shape = None if value.shape is None else ir.Shape(value.shape[axis] for axis in layout)
    output = ir.Value(name=name, type=value.type, shape=shape)
    return ir.tape.Tape(graph).op(
        "Transpose", [value], {"perm": list(layout)}, name=name, output=output
    )


def _model(graph: ir.Graph, models: Sequence[ir.Model], members: Sequence[Member]) -> ir.Model:
    names = [member.name for member in members]
    graph.metadata_props.update(_gathered(names, [model.graph.metadata_props for model in models]))
    graph.doc_string = _joined(names, [model.graph.doc_string for model in models])
    return ir.Model(
        graph,
        # Before 4, every initializer has to be an input as well.
        ir_version=max(4, *(model.ir_version for model in models)),
        producer_name="onnxpress",
        domain=models[0].domain,
        model_version=models[0].model_version,
        doc_string=_joined(names, [model.doc_string for model in models]),
        functions=[f for member in members for f in member.model.functions.values()],
        metadata_props=_gathered(names, [model.metadata_props for model in models]),
    )


def _joined(names: Sequence[str], texts: Sequence[str | None]) -> str | None:
    """The members' texts, each under its name."""
    lines = [f"{name}: {text}" for name, text in zip(names, texts, strict=True) if text]
    return "\n".join(lines) or None


def _gathered(names: Sequence[str], each: Sequence[dict[str, str]]) -> dict[str, str]:
    """The members' metadata: a key that means something else in an earlier one gets the name."""
    gathered: dict[str, str] = {}
    for name, properties in zip(names, each, strict=True):
        for key, value in properties.items():
            if gathered.get(key, value) != value:
                gathered[f"{name}/{key}"] = value
            else:
                gathered[key] = value
    return gathered
