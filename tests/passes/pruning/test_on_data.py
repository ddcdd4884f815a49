"""Criteria that look at samples, and the fraction of parameters."""

from __future__ import annotations

import numpy as np
import pytest

from onnxpress.backends.errors import UsageError
from onnxpress.passes.analysis import cost
from onnxpress.passes.base import Context
from onnxpress.passes.errors import PassError
from onnxpress.passes.pruning.importance import Criterion
from onnxpress.passes.pruning.prune_channels import PruneChannels
from tests.passes.pruning.helpers import Samples, build, normal

TEXT = """
<ir_version: 9, opset_import: ["" : 17]>
main (float[N,4] x) => (float[N,2] y) { a = MatMul (x, w)  r = Relu (a)  y = MatMul (r, v) }
"""


def weights() -> dict[str, np.ndarray]:
    w = normal(4, 8, seed=1)
    w[:, :4] *= 0.01  # hardly anything comes of these
    return {"w": w, "v": np.ones((8, 2), np.float32)}


@pytest.mark.parametrize("criterion", ["activation", "soft-threshold"])
def test_channels_that_bring_little_go(criterion: Criterion) -> None:
    model = build(TEXT, weights())
    data = Samples({"x": normal(64, 4)})
    chosen = PruneChannels(macs=0.5, multiple=1, criterion=criterion, reconstruct=False)

    result = chosen.rewrite(model, Context(data=data))

    assert result.details["kept"]["w"]["1"] == [4, 5, 6, 7]


def test_they_need_samples() -> None:
    chosen = PruneChannels(criterion="activation", reconstruct=False)

    with pytest.raises(PassError, match="needs samples"):
        chosen.rewrite(build(TEXT, weights()), Context())


def test_parameters_are_counted_in_the_place_of_macs() -> None:
    model = build(TEXT, weights())
    before = cost.parameters(model)

    result = PruneChannels(parameters=0.5, multiple=1, reconstruct=False).rewrite(model, Context())

    assert cost.parameters(model) <= before / 2
    assert result.details["parameters"] == [before, cost.parameters(model)]


def test_too_few_parameters_are_refused() -> None:
    with pytest.raises(
        PassError, match=r"at least 0\.25 of the parameters of this model, 0\.1 was"
    ):
        PruneChannels(parameters=0.1, reconstruct=False).rewrite(build(TEXT, weights()), Context())
    with pytest.raises(UsageError, match="cannot have parameters 2"):
        PruneChannels(parameters=2)
