"""`/health`, `/v1/models` and `/conversations`."""

from concurrent.futures import ThreadPoolExecutor

from claude_coded import __version__
from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, Model, eventually

POOL = {"size", "workers", "busy", "idle", "spare", "parked", "starting", "queued"}


def test_health_says_how_the_daemon_is(daemon: Daemon, name: str) -> None:
    daemon.ask("[[say hi]]", name)
    health = daemon.get("/health")
    assert health.status == 200
    assert (health.body["status"], health.body["version"]) == ("ok", __version__)
    assert health.body["uptime_s"] > 0
    assert health.body["claude"]["version"].startswith("2.")
    assert set(health.body["pool"]) == POOL
    assert health.body["pool"]["size"] == 5
    assert health.body["conversations"]["hot"] >= 1
    assert health.body["conversations"]["stored"] >= health.body["conversations"]["hot"]


def test_health_counts_the_workers_that_there_are(start: Start, model: Model, name: str) -> None:
    daemon = start(POOL_SIZE=3)
    eventually(lambda: daemon.pool()["spare"] == 1)
    assert daemon.pool() == dict.fromkeys(POOL, 0) | {"size": 3, "workers": 1, "spare": 1}
    with ThreadPoolExecutor() as threads:
        running = threads.submit(daemon.ask, "[[pause 800]] [[say 1]]", name)
        eventually(model.requests)
        pool = daemon.pool()
        assert (pool["busy"], pool["idle"]) == (1, 0)
        assert daemon.health()["conversations"] == {"hot": 1, "stored": 1}
        assert daemon.shown(name)["state"] == "busy"
        assert running.result().text == "1"
    eventually(lambda: (daemon.pool()["busy"], daemon.pool()["idle"]) == (0, 1))
    eventually(lambda: len(daemon.workers()) == daemon.pool()["workers"])


def test_the_models_are_listed_as_openai_does(daemon: Daemon) -> None:
    with daemon.openai() as client:
        eventually(lambda: "haiku" in [model.id for model in client.models.list()])
        models = client.models.list().data
        assert [model.id for model in models][:2] == ["claude-code", "claude-code-chat"]
        assert {"sonnet", "opus", "haiku"} <= {model.id for model in models}
        assert {(model.object, model.owned_by) for model in models} == {("model", "anthropic")}
        assert all(model.created > 1_600_000_000 for model in models)
        assert client.models.retrieve("claude-code").id == "claude-code"


def test_every_listed_model_can_be_shown_and_no_other(daemon: Daemon) -> None:
    for listed in daemon.get("/v1/models").body["data"]:
        assert daemon.get(f"/v1/models/{listed['id']}").body == listed
    unknown = daemon.get("/v1/models/gpt-4o")
    assert (unknown.status, unknown.code) == (404, "model_not_found")


def test_a_conversation_is_shown_with_what_was_said(daemon: Daemon, name: str) -> None:
    daemon.ask("one [[words 3]]", name)
    daemon.ask("two [[say 2]]", name, model="claude-code-chat")
    eventually(lambda: daemon.shown(name)["state"] == "idle")
    shown = daemon.shown(name)
    assert (shown["id"], shown["object"], shown["model"]) == (name, "conversation", "claude-code-chat")
    assert (shown["turns"], shown["workspace"]) == (2, str(daemon.workspace))
    assert shown["created_at"] <= shown["last_used_at"]
    assert shown["usage"]["completion_tokens"] == 4
    assert shown["messages"] == [
        {"role": "user", "content": "one [[words 3]]"},
        {"role": "assistant", "content": "w0 w1 w2 "},
        {"role": "user", "content": "two [[say 2]]"},
        {"role": "assistant", "content": "2"},
    ]


def test_hot_conversations_are_listed_and_with_all_the_stored_too(daemon: Daemon, name: str) -> None:
    hot, cold = f"{name}-hot", f"{name}-cold"
    for conversation in (cold, hot):
        daemon.ask("[[say hi]]", conversation)
    daemon.delete(f"/conversations/{cold}")
    listed = daemon.get("/conversations").body
    assert listed["object"] == "list"
    assert listed["data"][0]["id"] == hot
    assert cold not in [item["id"] for item in listed["data"]]
    assert set(listed["data"][0]) >= {
        "id", "state", "model", "created_at", "last_used_at", "turns", "workspace", "usage",
    }  # fmt: skip
    everything = {item["id"]: item["state"] for item in daemon.get("/conversations?all=true").body["data"]}
    assert everything[cold] == "cold"
    assert everything[hot] in {"busy", "idle"}


def test_a_conversation_that_is_purged_is_forgotten(daemon: Daemon, model: Model, name: str) -> None:
    daemon.ask("one [[say 1]]", name)
    transcript = f".claude/projects/*/{model.session('one')}.jsonl"
    eventually(lambda: list(daemon.home.glob(transcript)))
    deleted = daemon.delete(f"/conversations/{name}?purge=true")
    assert deleted.body == {"id": name, "object": "conversation.deleted", "deleted": True}
    gone = daemon.get(f"/conversations/{name}")
    assert (gone.status, gone.code) == (404, "not_found")
    assert name not in [item["id"] for item in daemon.get("/conversations?all=true").body["data"]]
    eventually(lambda: not list(daemon.home.glob(transcript)))
    assert daemon.ask("two [[recall]]", name).said == ["two [[recall]]"]


def test_a_conversation_that_is_purged_in_mid_turn_is_forgotten(
    daemon: Daemon, model: Model, name: str
) -> None:
    with ThreadPoolExecutor() as threads:
        running = threads.submit(daemon.ask, "one [[hang]]", name)
        eventually(lambda: model.requests("one"))
        assert daemon.delete(f"/conversations/{name}?purge=true").ok
        assert running.result().status == 409
    assert daemon.get(f"/conversations/{name}").status == 404
    assert daemon.ask("two [[recall]]", name).said == ["two [[recall]]"]


def test_an_unknown_conversation_is_a_404(daemon: Daemon) -> None:
    for answer in (daemon.get("/conversations/nobody"), daemon.delete("/conversations/nobody")):
        assert (answer.status, answer.code, answer.error["type"]) == (
            404,
            "not_found",
            "invalid_request_error",
        )
    assert daemon.get("/conversations/.bad").status == 400
