"""Settings for every test."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from onnxpress.backends.errors import ProviderUnavailableError

# No timed tests: how fast an example is drawn or run depends on the machine.
# In CI examples are the same in every run: a new one that fails is found by whoever looks for it.
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("default")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none, with what is missing."""
    if item.get_closest_marker("gpu") is not None:
        from onnxpress.backends.providers import check_provider

        try:
            check_provider("cuda")
        except ProviderUnavailableError as error:
            pytest.skip(f"{error.message}; {error.hint}")
