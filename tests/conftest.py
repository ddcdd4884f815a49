"""Settings for every test."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No timed tests: how fast an example is drawn or run depends on the machine.
# In CI examples are the same in every run: a new one that fails is found by whoever looks for it.
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("default")
