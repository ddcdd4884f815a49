"""Importance: norms of all that belongs to a channel, whatever the layers' scales."""

from __future__ import annotations

import numpy as np
import pytest

from onnxpress.passes.analysis.channel_rules import RULES
from onnxpress.passes.analysis.channels import ChannelGroup, channel_groups
from onnxpress.passes.base import Array
from onnxpress.passes.pruning.importance import Criterion, importance, norms
from tests.passes.pruning.helpers import build

TEXT = """
<ir_version: 9, opset_import: ["" : 17]>
main (float[N,2] x) => (float[N,1] y) { a = Gemm (x, w, b)  y = MatMul (a, v) }
"""
W = np.array([[3, 1, 0], [-4, 1, 0]], dtype=np.float32)
V = np.array([[2], [2], [0]], dtype=np.float32)


def group(w: Array = W, v: Array = V) -> ChannelGroup:
    model = build(TEXT, {"w": w, "b": np.array([100, 0, 0], dtype=np.float32), "v": v})
    return channel_groups(model, RULES).groups[0]


def scores(criterion: Criterion, one: ChannelGroup, seed: int = 0) -> list[float]:
    return [float(score) for score in importance(one, criterion, np.random.default_rng(seed))]


def test_l2() -> None:
    squares = np.array([25, 2, 0]) / 9 + np.array([4, 4, 0]) / (8 / 3)
    expected = np.sqrt(squares) / np.sqrt(squares).mean()

    assert scores("l2", group()) == pytest.approx(expected.tolist())


def test_l1() -> None:
    sums = np.array([7, 2, 0]) / 3 + np.array([2, 2, 0]) / (4 / 3)

    assert scores("l1", group()) == pytest.approx((sums / sums.mean()).tolist())


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_the_scale_of_a_layer_does_not_matter(criterion: Criterion) -> None:
    assert scores(criterion, group(W * 8, V / 8)) == pytest.approx(scores(criterion, group()))


def test_random_follows_the_seed() -> None:
    assert scores("random", group(), 1) == scores("random", group(), 1)
    assert scores("random", group(), 1) != scores("random", group(), 2)
    assert np.mean(scores("random", group())) == pytest.approx(1)


def test_weights_of_zero_are_equally_unimportant() -> None:
    assert scores("l2", group(W * 0, V * 0)) == [1, 1, 1]


def test_channels_near_the_others_matter_least_by_geometric_median() -> None:
    w = np.array([[1, 1.1, 9], [1, 1, -9]], dtype=np.float32)

    near, nearer, far = scores("geometric-median", group(w, np.ones((3, 1), np.float32)))

    assert max(near, nearer) < far


def test_scales_of_normalizations() -> None:
    model = build(
        """
        <ir_version: 9, opset_import: ["" : 17]>
        main (float[N,2,4] x) => (float[N,1,4] y) {
          a = Conv (x, w)
          b = BatchNormalization (a, s, z, z, o)
          y = Conv (b, v)
        }
        """,
        {
            "w": np.ones((3, 2, 1), np.float32),
            "v": np.ones((1, 3, 1), np.float32),
            "s": np.array([-3, 1, 2], np.float32),
            "z": np.zeros(3, np.float32),
            "o": np.ones(3, np.float32),
        },
    )
    (one,) = (own for own in channel_groups(model, RULES).groups if not own.frozen)

    assert scores("bn-scale", one) == pytest.approx([1.5, 0.5, 1])


def test_without_normalizations_norms_count() -> None:
    assert scores("bn-scale", group()) == scores("l2", group())


def test_soft_thresholding_leaves_out_tiny_weights() -> None:
    w = np.array([[1, 0, 0.5], [0, 0.5, 0.5]], dtype=np.float32)
    one = group(w, np.ones((3, 1), np.float32))

    assert norms(one, 2, 0)[1] > norms(one, 2, 1)[1]
    assert norms(one, 2, 1)[0] > norms(one, 2, 1)[2]
