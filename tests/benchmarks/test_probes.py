from __future__ import annotations

import numpy as np

from benchmarks.probes import PROBES, Convolution, widen


def test_every_probe_compares_two_models_that_run() -> None:
    for probes in PROBES.values():
        first = next(iter(probes(0.01)))
        assert first.baseline_us > 0
        assert first.speedup > 0


def test_the_two_forms_of_a_convolution_are_one() -> None:
    one = Convolution(8, 4, 10, 3, 2, 4)
    assert one.weight().shape == (4, 2, 3)
    assert np.isfinite(one.weight()).all()
    assert "kernel_shape = [3], strides = [2]" in one.call("x", "y", "w", lifted=False)
    assert "kernel_shape = [1,3], strides = [1,2]" in one.call("x", "y", "w", lifted=True)
    assert widen(0.01) is not None
