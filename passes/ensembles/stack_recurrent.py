"""How the recurrent layers of all branches run as one layer with all their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import is_constant
from .bundles import Bundle
from .stack_rules import Inputs, same_input
from .stacker import Stacked, Stacker, Unfit

RECURRENT: Final[Mapping[str, int]] = {"GRU": 3, "LSTM": 4, "RNN": 1}
"""The recurrent operators, each with how many gates it has."""

WIDEST: Final = 64
"""The largest state, of all branches together, that is written as one layer."""

LARGEST: Final = 16
"""The largest state of one branch, that is: two of 32 were slower together, four of 16 faster."""

WIDEST_APART: Final = 32
"""As :data:`WIDEST`, and for inputs as well, where branches read inputs of their own."""

_BOUNDED: Final = frozenset({"hardsigmoid", "sigmoid", "softsign", "tanh"})
_MOVES: Final = frozenset(
    {"Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)


def recurrent(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Sequence[Stacked | None]:
    """One layer whose state holds those of all branches, with zeros between them::

        h = f(W_k x + R_k h_k)     R = [R_1, 0; 0, R_2], W = [W_1; W_2], gate by gate

    where ``x`` is what all read; on inputs of their own ``W`` has its blocks on the diagonal, too.
    The products with zeros are work that the layers apart do not do, ``n`` times theirs, so that
    it pays for small states alone. They are zero while all is finite: weights are checked, states
    are bounded by their activations, and inputs of their own have to be.
    """
    node, count = bundle.first, len(bundle.nodes)
    gates = RECURRENT[node.op_type]
    if any(one is not None for one in inputs[1:3]):
        raise Unfit("a weight is not constant")
    _check_bounded(node)
    weights, states = _finite(stacker, bundle, 1), _finite(stacker, bundle, 2)
    hidden = states[0].shape[-1]
    if hidden > LARGEST or count * hidden > WIDEST:
        raise Unfit(
            f"its {count} states of {hidden} are above what pays, {LARGEST} each and {WIDEST} "
            "together: the products with the zeros between them take longer than a call for each"
        )
    stacked = inputs[0]
    if stacked is None:
        source = stacker.shared(bundle.reads(0))
        if source is None:
            raise Unfit("the branches do not read the same")
        weight = _by_gate(weights, gates)
    else:
        if not _is_bounded(bundle.reads(0)[0]):
            raise Unfit("what it reads may not be finite in one branch, and would reach the others")
        if count * max(hidden, weights[0].shape[-1]) > WIDEST_APART:
            raise Unfit(
                f"on inputs of their own, {count} states of {hidden} from {weights[0].shape[-1]} "
                f"are above what pays, {WIDEST_APART} together"
            )
        source = stacker.along(stacked, 2).value
        weight = _on_diagonal(weights, gates)
    operands: list[ir.Value | None] = [source]
    operands += map(stacker.constant, (weight, _on_diagonal(states, gates)))
    for at in range(3, len(node.inputs)):
        operands.append(_operand(stacker, bundle, inputs, at, gates))
    there = [
        any(one.outputs[at].uses() or one.outputs[at].is_graph_output() for one in bundle.nodes)
        for at in range(len(node.outputs))
    ]
    dims = [
        stacker.dims(value) if used else () for value, used in zip(node.outputs, there, strict=True)
    ]
    first = stacker.op(
        node.op_type, operands, {"hidden_size": count * hidden}, like=node, outputs=there
    )
    producer = first.producer()
    return [
        Stacked(value, count, size, len(size) - 1) if used else None
        for value, size, used in zip(producer.outputs if producer else (), dims, there, strict=True)
    ]


def _check_bounded(node: ir.Node) -> None:
    given = node.attributes.get("activations")
    names = () if given is None else given.as_strings()
    if unbounded := [name for name in names if name.lower() not in _BOUNDED]:
        raise Unfit(
            f"the activation {unbounded[0]} has no bound: one branch could become infinite, and "
            "would reach the others"
        )


def _is_bounded(value: ir.Value | None) -> bool:
    """Whether ``value`` holds states of a recurrent layer, which is stacked as ``value`` is."""
    while value is not None and (node := value.producer()) is not None and not node.domain:
        if node.op_type in RECURRENT:
            return True
        value = node.inputs[0] if node.op_type in _MOVES else None
    return False


def _finite(stacker: Stacker, bundle: Bundle, at: int) -> list[Array]:
    arrays = stacker.weights(bundle.reads(at))
    if arrays[0].dtype not in (np.float32, np.float64):
        raise Unfit("sums of so few bits may become infinite, and would reach the other branches")
    if not all(np.isfinite(array).all() for array in arrays):
        raise Unfit("a weight is not finite, and would reach the other branches")
    return arrays


def _by_gate(arrays: Sequence[Array], gates: int) -> Array:
    """Arrays of directions by gates times states, with the states of all within each gate."""
    directions, rows, *rest = arrays[0].shape
    split = [array.reshape(directions, gates, rows // gates, *rest) for array in arrays]
    return np.concatenate(split, axis=2).reshape(directions, rows * len(arrays), *rest)


def _on_diagonal(arrays: Sequence[Array], gates: int) -> Array:
    """As :func:`_by_gate`, each in columns of its own."""
    directions, rows, width = arrays[0].shape
    count, hidden = len(arrays), rows // gates
    whole = np.zeros((directions, gates, count, hidden, count, width), arrays[0].dtype)
    for at, array in enumerate(arrays):
        whole[:, :, at, :, at] = array.reshape(directions, gates, hidden, width)
    return whole.reshape(directions, rows * count, width * count)


def _operand(
    stacker: Stacker, bundle: Bundle, inputs: Inputs, at: int, gates: int
) -> ir.Value | None:
    """Biases, lengths, first states or peepholes of all branches."""
    values, stacked = bundle.reads(at), inputs[at]
    if all(value is None for value in values):
        return None
    if at == 4:
        if stacked is not None:
            raise Unfit("the lengths are computed in each branch")
        return same_input(stacker, bundle, at)
    if at in {3, 7}:
        if stacked is not None:
            raise Unfit("a weight is not constant")
        return stacker.constant(_by_gate(_finite(stacker, bundle, at), 2 * gates if at == 3 else 3))
    if stacked is not None:
        if not _is_bounded(values[0]):
            raise Unfit("a first state may not be finite, and would reach the other branches")
        return stacker.along(stacked, 2).value
    if is_constant(values[0]):
        return stacker.constant(np.concatenate(_finite(stacker, bundle, at), axis=2))
    if (shared := stacker.shared(values)) is None:
        raise Unfit("the first states are not the same value")
    return stacker.op("Concat", [shared] * len(values), {"axis": 2})
