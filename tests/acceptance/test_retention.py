"""What is kept of a conversation, and what is not."""

from pathlib import Path

from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, eventually


def transcripts(daemon: Daemon) -> list[Path]:
    return list(daemon.home.glob(".claude/projects/*/*.jsonl"))


def stored(daemon: Daemon) -> list[str]:
    listed = daemon.get("/conversations?all=true").body["data"]
    return [conversation["id"] for conversation in listed]


def test_purge_forgets_the_conversation_and_its_transcripts(start: Start) -> None:
    daemon = start(POOL_SIZE=1)
    daemon.ask("remember [[say yes]]", "gone")
    assert transcripts(daemon)
    assert daemon.request("DELETE", "/conversations/gone?purge=true").status == 200
    assert transcripts(daemon) == []
    assert stored(daemon) == []
    assert daemon.ask("[[recall]]", "gone").said == ["[[recall]]"]


def test_what_is_not_to_be_stored_goes_with_its_process(start: Start) -> None:
    daemon = start(POOL_SIZE=2)
    daemon.ask("kept [[say 1]]", "kept")
    daemon.ask("secret [[say 1]]", "secret", store=False)
    assert daemon.ask("more [[recall]]", "secret").said == ["secret [[say 1]]", "more [[recall]]"]
    assert sorted(stored(daemon)) == ["kept", "secret"]
    daemon.request("DELETE", "/conversations/secret")
    eventually(lambda: stored(daemon) == ["kept"])
    assert len(transcripts(daemon)) == 1


def test_a_stop_leaves_nothing_of_it_and_a_kill_nothing_beyond_the_next_start(start: Start) -> None:
    daemon = start(POOL_SIZE=1)
    for end in (daemon.stop, daemon.kill):
        daemon.ask("secret [[say 1]]", "secret", store=False)
        end()
        daemon.start()
        eventually(lambda: stored(daemon) == [])
        eventually(lambda: transcripts(daemon) == [])


def test_only_so_many_conversations_are_kept_when_the_setting_says_so(start: Start) -> None:
    daemon = start(POOL_SIZE=1, CLAUDE_CODED_RETENTION_COUNT=2)
    for name in "abcd":
        daemon.ask("[[say 1]]", name)
    daemon.stop()
    daemon.start()
    eventually(lambda: stored(daemon) == ["d", "c"])
    eventually(lambda: len(transcripts(daemon)) == 2)
