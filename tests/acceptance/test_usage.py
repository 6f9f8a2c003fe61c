"""What turns have used, as an operator asks for it."""

import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon

CTL = Path(sys.executable).with_name("claude-codectl")


def usage(daemon: Daemon, *arguments: str) -> str:
    command = [str(CTL), "--socket", str(daemon.socket), "usage", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def test_usage_is_counted_by_day_tenant_and_model_and_outlives_its_conversations(start: Start) -> None:
    keys = {"CLAUDE_CODED_API_KEYS": "ann:key-of-ann,joe:key-of-joe", "CLAUDE_CODED_SPARE_WORKERS": 0}
    daemon = start(key="key-of-ann", **keys)
    began = time.strftime("%Y-%m-%d", time.gmtime())
    answers = [daemon.ask("[[say one]]", "a"), daemon.ask("[[words 50]]", "a")]
    assert all(answer.ok for answer in answers)
    assert daemon.ask("[[error 400]]", "a").status == 400
    daemon.key = "key-of-joe"
    answers.append(daemon.ask("[[say hi]]", "a", model="claude-code-chat"))
    counted = json.loads(usage(daemon, "--json", "--by", "tenant", "--by", "model"))
    assert [(it["tenant"], it["model"], it["turns"], it["day"]) for it in counted] == [
        ("ann", "claude-code", 2, None),
        ("joe", "claude-code-chat", 1, None),
    ]
    told = [answer.body["usage"] for answer in answers]
    for side, name in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        assert sum(it["tokens"][side] for it in counted) == sum(it[name] for it in told)
    assert 0 < sum(it["tokens"]["cached"] for it in counted) < sum(it["tokens"]["input"] for it in counted)
    assert all(it["tokens"]["cost_usd"] > 0 for it in counted)
    assert daemon.shown("a")["usage"]["cost_usd"] == counted[1]["tokens"]["cost_usd"]

    for key in ("key-of-ann", "key-of-joe"):
        daemon.key = key
        assert daemon.delete("/conversations/a?purge=true").ok
    daemon.restart()
    assert json.loads(usage(daemon, "--json", "--by", "tenant", "--by", "model")) == counted
    rows = list(csv.DictReader(io.StringIO(usage(daemon, "--csv", "--since", began))))
    assert {row["tenant"]: row["turns"] for row in rows} == {"ann": "2", "joe": "1"}
    assert rows[0]["day"] >= began
    table = usage(daemon)
    assert "joe" in table
    assert table.splitlines()[0].split() == ["DAY", "TENANT", "MODEL", "TURNS", "IN", "CACHED", "OUT", "COST"]
    assert usage(daemon, "--since", "9999-12-31") == "no turns\n"
    for query, param in (("by=hour", "by"), ("since=yesterday", "since")):
        refused = daemon.control("GET", f"/v1/usage?{query}")
        assert refused.status_code == 400
        assert refused.json()["error"]["message"].startswith(f"{param} is ")
