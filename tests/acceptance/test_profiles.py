"""Models of the operator's: what the TOML file says of them reaches the CLI, and the model behind it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Start
from tests.support import mcp_server
from tests.support.client import assistant, function, user
from tests.support.daemon import Daemon, Json, Model, eventually

MODE, PLACE, EFFORT = "X-Claude-Permission-Mode", "X-Claude-Workspace", "X-Claude-Effort"
PWD = '[[tool Bash {"command": "pwd"}]] then [[result]]'
NOTE = "[[tool mcp__notes__note {}]] then [[result]]"
MODELS = """
[models.reviewer]
model = "opus"
tools = ["Read", "Glob", "Grep"]
system = "You review what others write."
permission_mode = "plan"
effort = "high"

[models.writer]
system_prompt = "replace"
permission_mode = "acceptEdits"

[models.noter]
tools = ["Bash"]
permission_mode = "dontAsk"
mcp_config = "mcp.json"
workspace = "elsewhere"

[models.notebook]
base = "chat"
system = "You take notes."
mcp_config = "mcp.json"

[models.plain]
base = "chat"
system_prompt = "append"
"""


def configured(daemon: Daemon, models: str = MODELS) -> Daemon:
    """Write a daemon's configuration."""
    servers = {"notes": {"command": sys.executable, "args": ["-I", mcp_server.__file__]}}
    (daemon.directory / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    (daemon.directory / "elsewhere").mkdir(exist_ok=True)
    (daemon.workspace / "one").mkdir(exist_ok=True)
    (daemon.workspace / "CLAUDE.md").write_text("The password is swordfish.")
    (daemon.directory / "config.toml").write_text(models)
    return daemon


@pytest.fixture(scope="module")
def profiles(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("profiles"), {"ANTHROPIC_BASE_URL": served_model.url})
    try:
        yield configured(daemon).start()
    finally:
        daemon.close()


def sent(model: Model, text: str) -> Json:
    """Return the newest request to the model with this text."""
    return eventually(lambda: model.requests(text))[-1]


def system(body: Json) -> str:
    """Return the system prompt of a request, without the CLI's first line."""
    return "\n".join(block["text"] for block in body["system"] if "billing-header" not in block["text"])


def test_they_are_listed_and_shown_between_ours_and_the_clis(profiles: Daemon) -> None:
    names = [item["id"] for item in profiles.get("/v1/models").body["data"]]
    ours = ["claude-code", "claude-code-chat"]
    assert names[:7] == [*ours, "reviewer", "writer", "noter", "notebook", "plain"]
    assert "haiku" in names
    assert profiles.get("/v1/models/reviewer").body["id"] == "reviewer"


def test_tools_model_effort_and_system_text_reach_the_model(
    profiles: Daemon, model: Model, name: str
) -> None:
    messages = [{"role": "system", "content": f"be brief, {name}"}, user(f"{name} [[offered]]")]
    answer = profiles.ask(messages, model=f"reviewer:{name}")
    assert answer.conversation == name
    assert {"Glob", "Grep", "Read"} <= set(answer.said)
    assert not {"Bash", "Edit", "Write", "Agent"} & set(answer.said)
    body = sent(model, name)
    assert "opus" in body["model"]
    assert body["output_config"]["effort"] == "high"
    assert f"You review what others write.\n\nbe brief, {name}" in system(body)
    assert "Claude" in system(body).split("You review")[0]
    again = f"{name} again [[say ok]]"
    assert profiles.ask(again, model=f"reviewer:{name}", headers={EFFORT: "low"}).ok
    assert sent(model, again)["output_config"]["effort"] == "low"
    shown = profiles.shown(name)
    assert (shown["model"], shown["turns"]) == ("reviewer", 2)


def test_the_models_mode_is_what_claude_may_do_and_the_most_that_a_client_may_choose(
    profiles: Daemon, name: str
) -> None:
    refused = profiles.ask(name, model="reviewer", headers={MODE: "acceptEdits"})
    assert (refused.status, refused.error["param"]) == (403, MODE)
    assert profiles.ask(name, model="reviewer", tools=[function("get")]).error["param"] == "tools"
    made = profiles.workspace / name
    touch = f'{name} [[tool Write {{"file_path": "{made}", "content": "x"}}]] then [[result]]'
    assert profiles.ask(touch, model="writer", headers={MODE: "dontAsk"}).text.startswith("error: ")
    assert not made.exists()
    assert profiles.ask(f"{touch} now", model="writer").ok
    assert made.read_text() == "x"


def test_the_servers_that_a_model_names_are_its_and_need_no_leave(
    profiles: Daemon, model: Model, name: str
) -> None:
    noted = f"noted in {profiles.directory / 'elsewhere'}"
    assert profiles.ask(f"{name} {NOTE}", model="noter").text == noted
    touch = '[[tool Bash {"command": "touch x"}]] then [[result]]'
    assert profiles.ask(f"{name} touch {touch}", model="noter").text.startswith("error: ")  # dontAsk
    notebook = profiles.ask(f"{name} book {NOTE}", model="notebook")
    assert notebook.text == f"noted in {profiles.workspace}"
    body = sent(model, f"{name} book")
    assert "swordfish" not in json.dumps(body)
    assert system(body).endswith("You take notes.")
    assert "no such tool" in profiles.ask(f"{name} without {NOTE}").text


def test_whether_a_prompt_is_replaced_or_appended_to(profiles: Daemon, model: Model, name: str) -> None:
    def prompt(kind: str) -> str:
        text = f"{name} {kind} [[say ok]]"
        assert profiles.ask([{"role": "system", "content": "MINE"}, user(text)], model=kind).ok
        return system(sent(model, text))

    replaced, appended = prompt("writer"), prompt("plain")
    assert replaced.endswith("MINE")
    assert appended.endswith("MINE")
    assert len(replaced) < 500 < len(appended)
    assert "swordfish" in json.dumps(sent(model, f"{name} writer"))
    assert "swordfish" not in json.dumps(sent(model, f"{name} plain"))


def test_a_models_workspace_is_where_it_works_and_no_other_model(profiles: Daemon, name: str) -> None:
    mine = str(profiles.directory / "elsewhere")
    first = f"{name} [[say 1]]"
    began = profiles.ask(first, model="noter")
    assert profiles.shown(began.conversation)["workspace"] == mine
    chosen = profiles.ask(f"{name} two [[say 2]]", model="noter", headers={PLACE: "one"})
    assert profiles.shown(chosen.conversation)["workspace"] == str(profiles.workspace / "one")
    # With a model that does not work there, the same history is another conversation.
    history = [user(first), assistant("1")]
    other = profiles.ask([*history, user(f"{name} three {PWD}")])
    assert (other.conversation != began.conversation, other.text) == (True, str(profiles.workspace))
    named = profiles.ask(f"{name} four", began.conversation)
    assert (named.status, named.error["param"]) == (400, "model")
    went_on = profiles.ask([*history, user(f"{name} five [[say 5]]")], model="noter")
    assert went_on.conversation == began.conversation


def test_a_conversation_goes_on_when_its_model_was_changed_and_not_under_a_name_that_is_gone(
    make: Start, model: Model, name: str
) -> None:
    daemon = configured(make(), '[models.mine]\ntools = ["Read"]\neffort = "low"\n').start()
    assert "Grep" not in daemon.ask(f"{name} [[offered]]", model=f"mine:{name}").said
    configured(daemon, '[models.mine]\ntools = ["Read", "Grep"]\neffort = "max"\n').restart()
    answer = daemon.ask(f"{name} two [[offered]]", model=f"mine:{name}")
    assert "Grep" in answer.said
    assert sent(model, f"{name} two")["output_config"]["effort"] == "max"
    assert daemon.ask(f"{name} three [[recall]]", model=f"mine:{name}").said[0] == f"{name} [[offered]]"
    configured(daemon, "").restart()
    gone = daemon.ask(f"{name} four", model=f"mine:{name}")
    assert (gone.status, gone.code, gone.error["param"]) == (404, "model_not_found", "model")
    assert daemon.shown(name)["model"] == "mine"
    assert len(daemon.ask(f"{name} five [[recall]]", name).said) == 4


def test_a_model_that_cannot_be_is_told_at_the_start(make: Start, tmp_path: Path) -> None:
    def refused(models: str, **settings: Any) -> str:
        daemon = configured(make(**settings), models)
        assert daemon.spawn().wait(30) == 1
        return daemon.log

    assert "[models.mine]: unknown keys: tool" in refused("[models.mine]\ntool = []\n")
