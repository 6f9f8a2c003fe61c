"""The outcome in markdown and JSON."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import orjson

from tests.benchmarks.alternatives.servers import LEFT_OUT, Server
from tests.benchmarks.alternatives.speed import AT_ONCE, DELTAS, Speed
from tests.benchmarks.alternatives.trial import Seen


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to, by name; `claude` is the CLI's version."""

    servers: Sequence[Server]
    speeds: Mapping[str, Speed]
    seen: Mapping[str, Mapping[str, Seen]]
    claude: str


def markdown(outcome: Outcome) -> str:
    """Return all of it as text."""
    parts = [
        f"Claude Code {outcome.claude}, {os.cpu_count()} cores, load {os.getloadavg()[2]:.1f}",
        _speeds(outcome.speeds),
        _behaviours(outcome.seen),
        _details(outcome.seen),
        _sources(outcome.servers),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _speeds(speeds: Mapping[str, Speed]) -> str:
    head = (
        "",
        "first token, new conversation, ms",
        "first token, second turn, ms",
        f"{DELTAS:,} deltas, new conversation, ms",
        f"{DELTAS:,} deltas, later turn, ms",
        "pieces",
        f"{AT_ONCE} conversations at once, ms",
        "right",
        "memory at rest, MB",
    )
    rows = [(name, *_figures(speed)) for name, speed in speeds.items()]
    faults = [f"- {name}: {fault}" for name, speed in speeds.items() for fault in speed.faults]
    return "\n\n".join(filter(None, (table(head, rows), "\n".join(faults))))


def _figures(speed: Speed) -> Sequence[str]:
    return (
        spread(speed.new),
        spread(speed.second),
        spread(speed.stream),
        spread(speed.again),
        f"{median(speed.pieces):,.0f}" if speed.pieces else "",
        spread(speed.together),
        f"{sum(speed.right)} of {AT_ONCE * len(speed.right)}" if speed.right else "",
        f"{median(speed.memory):,.0f}" if speed.memory else "",
    )


def spread(seconds: Sequence[float]) -> str:
    """Return median and range in milliseconds."""
    if not seconds:
        return ""
    low, middle, high = (f"{value * 1000:,.0f}" for value in (min(seconds), median(seconds), max(seconds)))
    return f"{middle} ({low} to {high})"


def _behaviours(seen: Mapping[str, Mapping[str, Seen]]) -> str:
    names = dict.fromkeys(name for of_one in seen.values() for name in of_one)
    rows = [(name, *(_verdict(of_one.get(name)) for of_one in seen.values())) for name in names]
    return table(("", *seen), rows)


def _verdict(seen: Seen | None) -> str:
    return seen.verdict.value if seen else "not asked"


def _details(seen: Mapping[str, Mapping[str, Seen]]) -> str:
    return "\n\n".join(
        f"{name}\n\n" + "\n".join(f"- {what}: {it.verdict.value}: {it.what}" for what, it in of_one.items())
        for name, of_one in seen.items()
    )


def _sources(servers: Sequence[Server]) -> str:
    ran = [(server.name, server.package, server.mode) for server in servers]
    left_out = [(name, "left out", why) for name, why in LEFT_OUT.items()]
    return table(("", "from", "run"), [*ran, *left_out])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a markdown table."""
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


def document(outcome: Outcome) -> bytes:
    """Return all of it as JSON, with every sample."""
    machine = {"cores": os.cpu_count(), "load": os.getloadavg(), "python": platform.python_version()}
    seen = {
        name: {what: {"verdict": it.verdict.value, "seen": it.what} for what, it in of_one.items()}
        for name, of_one in outcome.seen.items()
    }
    body: dict[str, Any] = {
        "machine": machine | {"claude": outcome.claude},
        "servers": {it.name: {"from": it.package, "run": it.mode} for it in outcome.servers},
        "left_out": LEFT_OUT,
        "speed": {name: asdict(speed) for name, speed in outcome.speeds.items()},
        "behaviour": seen,
    }
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
