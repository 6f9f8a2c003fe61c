"""What a check finds, and how that is told."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from claude_coded import __version__
from claude_coded.check import probes
from claude_coded.claude.launch import environment
from claude_coded.settings import Settings


class Mark(Enum):
    """How an item is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """An item, how it is, and what to do where it could be better."""

    item: str
    mark: Mark
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is checked: the settings, and the environment that the daemon would have."""

    settings: Settings
    environment: Mapping[str, str]

    @property
    def running(self) -> bool:
        """Return whether a daemon uses the state directory."""
        with contextlib.suppress(OSError):
            return probes.is_locked(self.settings.state_dir / "lock")
        return False

    @property
    def worker_environment(self) -> dict[str, str]:
        """Return a worker's environment, without connections that are not needed."""
        claude = self.settings.claude
        made = environment(self.environment, api_key=claude.api_key, retries=0)
        return {**made, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}


def failed(findings: Sequence[Finding]) -> bool:
    """Return whether anything keeps the daemon from working."""
    return any(finding.mark is Mark.FAILED for finding in findings)


def as_text(findings: Sequence[Finding]) -> str:
    """Return a line for each finding."""
    width = max(len(finding.item) for finding in findings)
    return "\n".join(
        f"{it.mark.value:<7}  {it.item:<{width}}  {_line(it.text)}"
        + (f" -> {it.advice}" if it.advice else "")
        for it in findings
    )


def as_json(findings: Sequence[Finding]) -> str:
    """Return the same for programs."""
    items = [
        {"item": it.item, "mark": it.mark.value, "text": it.text, "advice": it.advice or None}
        for it in findings
    ]
    return json.dumps({"ok": not failed(findings), "version": __version__, "items": items}, indent=2)


def _line(text: str) -> str:
    return " ".join(text.split())
