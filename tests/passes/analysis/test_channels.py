"""Channel groups: text in, text out for every rule; removing what is free changes nothing else."""

from __future__ import annotations

import string

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.passes.analysis.channel_reshapes import Product, Size, blocks, regrouped, resolved
from onnxpress.passes.analysis.channel_rules import RULES, elementwise
from onnxpress.passes.analysis.channels import ChannelGroup, Member, Rule, channel_groups
from onnxpress.passes.base import Array
from onnxpress.passes.graph import add_initializer, constant
from onnxpress.passes.pruning.slice import Cuts, cuts_of, slice_channels
from tests.passes.analysis import channel_axis_cases, channel_cases
from tests.passes.analysis.channel_cases import Case

CASES = channel_cases.CASES | channel_axis_cases.CASES
REFUSED = channel_cases.REFUSED | channel_axis_cases.REFUSED


def listing(model: ir.Model) -> list[str]:
    groups = channel_groups(model, RULES).groups
    return [line(group) for group in groups if group.frozen != "they reach the graph output 'y'"]


def line(group: ChannelGroup) -> str:
    members = " ".join(place(member, group.size) for member in group.members)
    return f"{group.size}: {members}" + (f" | {group.frozen}" if group.frozen else "")


def place(member: Member, size: int) -> str:
    text = f"{member.value.name}.{member.axis}"
    if member.size == size and (member.channels == np.arange(size)).all():
        return text
    digits = ["-"] * member.size
    for position, channel in zip(member.positions, member.channels, strict=True):
        digits[position] = string.digits[channel]
    return f"{text}[{''.join(digits)}]"


def answers(model: ir.Model) -> dict[str, Array]:
    session = session_of(model, SessionConfig(level="disabled", threads=1))
    rng = np.random.default_rng(3)
    feeds = {}
    for spec in session.inputs:
        shape = [size if isinstance(size, int) else 2 for size in spec.shape or ()]
        feeds[spec.name] = rng.normal(size=shape).astype(np.float32)
    return session.run(feeds)


def with_zeros(model: ir.Model, cuts: Cuts) -> ir.Model:
    """A clone of ``model`` whose constants are zero where ``cuts`` would remove them."""
    twin = model.clone()
    values = ir.convenience.create_value_mapping(twin.graph)
    for value, axes in cuts.items():
        array = constant(value)
        if array is None:
            continue
        array = array.copy()
        for axis, mask in axes.items():
            np.moveaxis(array, axis, 0)[~mask] = 0
        zeroed = add_initializer(twin.graph, f"{value.name}.masked", array)
        values[value.name or ""].replace_all_uses_with(zeroed)
    return twin


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_groups(case: Case) -> None:
    model = case.build()
    before = ir.to_onnx_text(model)

    assert listing(model) == list(case.groups)
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_freezes(case: Case) -> None:
    assert listing(case.build())[0] == case.groups[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_removing_channels_equals_zeros_in_their_weights(case: Case, seed: int) -> None:
    model = case.build()
    coupling = channel_groups(model, RULES)
    rng = np.random.default_rng(seed)
    groups = [group for group in coupling.groups if not group.frozen]
    masks = [rng.uniform(size=group.size) < 0.5 for group in groups]
    for mask in masks:
        mask[rng.integers(len(mask))] = True
    cuts = cuts_of(groups, masks)
    expected = answers(with_zeros(model, cuts))

    slice_channels(model, coupling, cuts)

    found = answers(model)
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)


def test_a_rule_of_ones_own() -> None:
    case = REFUSED["an operator of one's own"]
    model = case.build()
    for value in model.graph.all_nodes():
        for output in value.outputs:
            output.shape = ir.Shape(["N", 4, 4, 4])
    rules: dict[tuple[str, str], Rule] = {**RULES, ("my", "Scale"): elementwise}

    groups = channel_groups(model, rules).groups

    assert line(groups[0]) == "4: w.0 a.1 s.1 v.1"


def test_a_name_of_the_standard_domain_is_the_standard_operator() -> None:
    model = CASES["residual"].build()
    for node in model.graph:
        node.domain = "ai.onnx"

    assert listing(model) == list(CASES["residual"].groups)


def test_the_name_of_a_group_is_that_of_its_first_tensor() -> None:
    groups = channel_groups(CASES["concat"].build(), RULES).groups

    assert [group.name for group in groups] == ["a", "b", "y"]


@pytest.mark.parametrize(
    ("before", "after", "runs"),
    [
        (("N", 64, 5, 5), ("N", 1600), [([0], [0]), ([1, 2, 3], [1])]),
        (("N", 4, 1, 1), ("N", 4), [([0], [0]), ([1, 2, 3], [1])]),
        (("N", 4), ("N", 4, 1, 1), [([0], [0]), ([1], [1, 2, 3])]),
        ((2, 3, 4), (6, 4), [([0, 1], [0]), ([2], [1])]),
        (("N", "T", 8), ("N", "T", 2, 4), [([0], [0]), ([1], [1]), ([2], [2, 3])]),
        (("N", "T", 8), ("T", "N", 8), [([0, 1], [0, 1]), ([2], [2])]),
        ((6,), (4,), [([0], [0])]),
    ],
)
def test_blocks(
    before: tuple[int | str, ...], after: tuple[int | str, ...], runs: list[tuple[list[int], ...]]
) -> None:
    assert list(blocks(before, after)) == runs


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("N", 4, 5), (None, 20), ("N", 20)),
        (("N", 4, 5), ("unk__0", 20), ("N", 20)),
        (("N", 4, 6), ("N", None, 3), ("N", 8, 3)),
        (("N", 4, 6), ("N", None, None), ("N", None, None)),
        (("N", 4, 5), (None, 3), (None, 3)),
        (("N", "T", 5), (None, 5), (Product(1, ("N", "T")), 5)),
        (("N", 2, "T", 5), (None, "T", 5), (Product(2, ("N",)), "T", 5)),
        ((Product(2, ("N",)), 5), ("N", None, 5), ("N", 2, 5)),
        ((None, 4), (None, 2), (None, 2)),
        (("N", 4), ("M", None), ("M", None)),
        (("N", 0), (None, 0), (None, 0)),
    ],
)
def test_one_unknown_size_is_worked_out(
    before: tuple[Size, ...], after: tuple[Size, ...], expected: tuple[Size, ...]
) -> None:
    assert resolved(before, after) == expected


def test_labels_through_a_reshape() -> None:
    labels = np.array([7, 8])

    merged = regrouped(labels, 0, (2, 3), (6,))
    assert merged is not None
    assert (merged[0], merged[1].tolist()) == (0, [7, 7, 7, 8, 8, 8])
    last = regrouped(labels, 1, (3, 2), (6,))
    assert last is not None
    assert last[1].tolist() == [7, 8, 7, 8, 7, 8]
    assert regrouped(np.arange(4), 0, (4,), (2, 2)) is None
    assert regrouped(labels, 0, (2, "T"), (None,)) is None
    assert regrouped(labels, 1, ("N", 2), ("T", "S")) is None
    periodic = regrouped(labels, 1, ("N", 2), (Product(2, ("N",)),))
    assert periodic is not None
    assert (periodic[0], periodic[1].tolist()) == (0, [7, 8])
    back = regrouped(labels, 0, (Product(2, ("N",)),), ("N", 2))
    assert back is not None
    assert (back[0], back[1].tolist()) == (1, [7, 8])
