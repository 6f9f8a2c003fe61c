"""claude_coded (architecture page to come)."""

__version__ = "0.1.0"
