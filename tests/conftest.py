"""Settings for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No timed tests: how fast an example is drawn or run depends on the machine.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")
