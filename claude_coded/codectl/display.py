"""What the commands show of the daemon's answers, as lines. Pure: the time of now is an argument."""

import csv
import io
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from claude_coded.codectl.render import (
    Column,
    ago,
    cost,
    counted,
    duration,
    indented,
    lines,
    number,
    pairs,
    printable,
    size,
    table,
)
from claude_coded.control import api

DEFAULT_TENANT: Final = "default"

_WORKERS: Final = (
    Column("WORKER"),
    Column("STATE"),
    Column("CONVERSATION"),
    Column("FOR", right=True),
    Column("TURNS", right=True),
    Column("IN", right=True),
    Column("OUT", right=True),
    Column("COST", right=True),
    Column("MEMORY", right=True),
    Column("PID", right=True),
    Column("DOING"),
)
_CONVERSATIONS: Final = (
    Column("CONVERSATION"),
    Column("STATE"),
    Column("WORKER"),
    Column("MODEL"),
    Column("TURNS", right=True),
    Column("IN", right=True),
    Column("OUT", right=True),
    Column("COST", right=True),
    Column("USED", right=True),
    Column("WORKSPACE"),
)
_USAGE: Final = (
    Column("DAY"),
    Column("TENANT"),
    Column("MODEL"),
    Column("TURNS", right=True),
    Column("IN", right=True),
    Column("CACHED", right=True),
    Column("OUT", right=True),
    Column("COST", right=True),
)
_SETTINGS: Final = (Column("SETTING"), Column("VALUE"), Column("FROM"), Column("CHANGE"))


def full_name(conversation: str, tenant: str | None, shared: Collection[str] = ()) -> str:
    """Return a conversation's name as the commands take it; `shared` are those that several tenants have."""
    alone = tenant in {None, DEFAULT_TENANT} and conversation not in shared
    return conversation if alone else f"{tenant}/{conversation}"


def full_names(them: Iterable[api.Conversation]) -> list[str]:
    """Return the names of conversations, each with its tenant where it is not the only one of its name."""
    keys = [(it.id, it.tenant) for it in them]
    counts = Counter(conversation for conversation, _ in keys)
    shared = {conversation for conversation, count in counts.items() if count > 1}
    return [full_name(*key, shared) for key in keys]


def status(it: api.Status) -> list[str]:
    """Return the daemon's state in a block of lines."""
    waiting = f"{counted(it.requests, 'request')} for permission: claude-codectl requests"
    return pairs(
        [
            ("state", f"{it.state}: {it.reason}" if it.reason else it.state),
            ("version", f"{it.version}, Claude Code {it.claude}"),
            ("address", it.address),
            ("socket", it.socket),
            ("process", f"{it.pid}, up {duration(it.uptime_s)}"),
            ("workspace", it.workspace),
            ("workers", pool(it.pool)),
            ("queue", f"{it.pool.queued} waiting"),
            ("conversations", f"{it.hot} hot, {it.stored} stored"),
            ("waiting", waiting if it.requests else ""),
            ("log level", it.log_level),
        ]
    )


def pool(it: api.PoolCounts) -> str:
    """Return how many workers there are, and in which states."""
    states = ("busy", "parked", "idle", "spare", "starting")
    counts = ", ".join(f"{getattr(it, state)} {state}" for state in states if getattr(it, state))
    return f"{it.workers} of {it.size}" + (f": {counts}" if counts else "")


def workers(them: Sequence[api.Worker], now: float) -> list[str]:
    """Return the table of workers."""
    return table(_WORKERS, (_worker(it, now) for it in them)) if them else ["no workers"]


def _worker(it: api.Worker, now: float) -> list[str]:
    return [
        it.id,
        state(it),
        full_name(it.conversation, it.tenant) if it.conversation else "",
        duration(now - it.since),
        str(it.turns or ""),
        *usage(it.usage),
        size(it.tree.memory),
        str(it.pid or ""),
        doing(it.turn, now),
    ]


def state(it: api.Worker) -> str:
    """Return a worker's state; `idle+` works on, or may, with nobody asking."""
    return it.state + ("+" if it.pending and it.state == "idle" else "")


def usage(it: api.Tokens) -> tuple[str, str, str]:
    """Return tokens in, tokens out and their cost; nothing where none were used."""
    if not it.input and not it.output:
        return "", "", ""
    return number(it.input), number(it.output), cost(it.cost_usd)


def doing(turn: api.Turn | None, now: float) -> str:
    """Return what a turn is at, and for how long it has run."""
    if turn is None:
        return ""
    return f"{turn.doing or 'answering'}, {duration(now - turn.started_at)}"


def conversations(them: Sequence[api.Conversation], now: float) -> list[str]:
    """Return the table of conversations; the workspace shows where there are several."""
    if not them:
        return ["no conversations"]
    several = len({it.workspace for it in them}) > 1
    named = zip(full_names(them), them, strict=True)
    return table(_CONVERSATIONS, (_conversation(name, it, now, workspace=several) for name, it in named))


def _conversation(name: str, it: api.Conversation, now: float, *, workspace: bool) -> list[str]:
    return [
        name,
        it.state,
        it.worker or "",
        it.model,
        str(it.turns),
        *usage(it.usage),
        ago(now - it.last_used_at),
        it.workspace if workspace else "",
    ]


def used(them: Sequence[api.Usage]) -> list[str]:
    """Return the table of what turns have used, with their sum where there are several lines."""
    if not them:
        return ["no turns"]
    rows = [[it.day or "", it.tenant or "", it.model or "", *_sums([it])] for it in them]
    shown = table(_USAGE, [*rows, ["", "", "", *_sums(them)]])
    return shown if len(them) > 1 else shown[:-1]


def _sums(them: Iterable[api.Usage]) -> list[str]:
    them = list(them)
    tokens = [it.tokens for it in them]
    counts = (sum(getattr(it, name) for it in tokens) for name in ("input", "cached", "output"))
    return [str(sum(it.turns for it in them)), *map(number, counts), cost(sum(it.cost_usd for it in tokens))]


def usage_csv(them: Iterable[api.Usage], by: Sequence[str]) -> str:
    """Return the same as CSV (RFC 4180), with a header, and figures in full."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow([*by, "turns", "input", "cached", "output", "cost_usd"])
    for it in them:
        sides, tokens = [getattr(it, side) for side in by], it.tokens
        writer.writerow([*sides, it.turns, tokens.input, tokens.cached, tokens.output, tokens.cost_usd])
    return file.getvalue()


def shown(it: api.Shown, now: float) -> list[str]:
    """Return a conversation, and its worker's story."""
    about, used = it.conversation, it.conversation.usage
    block = pairs(
        [
            ("conversation", full_name(about.id, about.tenant)),
            ("state", about.state),
            ("model", about.model),
            ("turns", f"{about.turns}, {counted(it.messages, 'message')}"),
            ("tokens", f"{number(used.input)} in ({number(used.cached)} cached), {number(used.output)} out"),
            ("cost", cost(used.cost_usd)),
            ("created", ago(now - about.created_at)),
            ("last used", ago(now - about.last_used_at)),
            ("workspace", about.workspace),
            ("session", about.session),
        ]
    )
    return [*block, "", *worker(it.worker, now)] if it.worker else block


def worker(it: api.WorkerStory, now: float) -> list[str]:
    """Return a worker, how it came to where it is, and the last that its CLI complained."""
    about, tree = it.worker, it.worker.tree
    resources = f"{size(tree.memory)} in {counted(tree.processes, 'process', 'processes')}"
    block = pairs(
        [
            ("worker", about.id),
            ("state", f"{state(about)}, for {duration(now - about.since)}"),
            ("conversation", full_name(about.conversation, about.tenant) if about.conversation else ""),
            ("doing", doing(about.turn, now)),
            ("process", str(about.pid or "")),
            ("memory", f"{resources}, {tree.cpu_s:.1f} s of CPU" if tree.processes else ""),
            ("turns", str(about.turns)),
            ("session", about.session),
            ("workspace", about.workspace),
        ]
    )
    return [*block, "", "story", *indented(story(it.story, now)), *_complaints(it.stderr)]


def story(steps: Iterable[api.Step], now: float) -> list[str]:
    """Return the steps of a worker, the oldest first."""
    columns = (Column("", right=True), Column(""), Column(""))
    return table(columns, ([ago(now - step.at), step.state, step.why] for step in steps))[1:]


def _complaints(stderr: str) -> list[str]:
    return ["", "stderr", *indented(lines(stderr))] if stderr.strip() else []


def requests(them: Sequence[api.Permission], now: float) -> list[str]:
    """Return what waits for an answer, in full: who answers must see all of it."""
    if not them:
        return ["nothing waits for an answer"]
    text: list[str] = []
    for it in them:
        text += ["", *_request(it, now)]
    return text[1:]


def _request(it: api.Permission, now: float) -> list[str]:
    asked = f"{ago(now - it.asked_at)}, denied by itself in {duration(it.expires_at - now)}"
    block = pairs(
        [
            ("conversation", f"{full_name(it.conversation, it.tenant)} ({it.worker})"),
            ("asked", asked),
            ("--always", "; ".join(it.always)),
        ]
    )
    head = f"{printable(it.id)}  {printable(it.tool)}: {printable(it.summary)}"
    return [head, *indented(block), *indented(_input(it.input))]


def _input(fields: dict[str, object]) -> Iterable[str]:
    for name, value in fields.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        first, *rest = lines(text) or [""]
        yield f"{printable(name)}: {first}"
        yield from indented(rest)


def config(them: Iterable[api.Setting]) -> list[str]:
    """Return the table of settings."""
    rows = ([it.name, it.value, it.source, "needs a restart" if it.restart else ""] for it in them)
    return table(_SETTINGS, rows)


def event(it: api.Event) -> list[str]:
    """Return an event in a line, after a line on those that were lost before it."""
    fields = dict(it.fields)
    tenant = fields.pop("tenant", None)
    if "conversation" in fields:
        fields["conversation"] = full_name(str(fields["conversation"]), tenant)
    elif tenant is not None:
        fields["tenant"] = tenant
    told = "".join(f"  {name}={_value(name, value)}" for name, value in fields.items() if value is not None)
    lost = [f"({counted(it.missed, 'event')} missed)"] if it.missed else []
    return [*lost, f"{it.number:>6}  {_clock(it.at)}  {printable(it.kind)}{printable(told)}"]


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _value(name: str, value: object) -> str:
    if isinstance(value, float):
        return _clock(value) if name.endswith("_at") else f"{value:g}"
    if isinstance(value, str) and not any(it.isspace() for it in value):
        return value
    return msgspec.json.encode(value).decode()


def evicted(it: api.Evicted) -> list[str]:
    """Return the names of what was released."""
    names = (printable(name.removeprefix(f"{DEFAULT_TENANT}/")) for name in it.evicted)
    return [f"evicted {name}" for name in names] or ["nothing to evict"]


def drained(it: api.Drain) -> str:
    """Return how far a drain has come."""
    parked = f"; {counted(it.parked, 'turn')} with calls of the client's will be rebuilt" if it.parked else ""
    if it.running:
        return f"draining: {counted(it.running, 'turn')} still running{parked}"
    return f"drained: no turn runs, and no new one is taken{parked}"


def reloaded(it: api.Reloaded) -> list[str]:
    """Return what a reload has changed."""
    text = [f"changed: {', '.join(it.changed)}" if it.changed else "nothing has changed"]
    return [*text, f"needs a restart: {', '.join(it.restart)}"] if it.restart else text
