"""What all tests share."""

from hypothesis import HealthCheck, settings

# The first example of a test may pay for imports, and the machine may be busy: that is no fault of a test.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
