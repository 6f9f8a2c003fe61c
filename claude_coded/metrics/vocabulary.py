"""What metrics share: the first word of their names, and their buckets."""

from typing import Final

NAMESPACE: Final = "claude_coded"

SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
)
"""Bounds of the buckets: from what the daemon itself takes to the longest turn that it allows."""
