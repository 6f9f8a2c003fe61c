"""Conversations: how they are named, that they keep apart, and that they keep everything."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.daemon import Daemon, Json, Model, dialogue, eventually, texts


def test_a_conversation_named_by_header_goes_on(daemon: Daemon, name: str) -> None:
    first = daemon.ask("one [[say 1]]", name)
    second = daemon.ask("two [[recall]]", name)
    assert first.conversation == second.conversation == name
    assert second.said == ["one [[say 1]]", "two [[recall]]"]


def test_a_conversation_named_by_the_models_suffix_goes_on(daemon: Daemon, name: str) -> None:
    first = daemon.ask("one [[say 1]]", model=f"claude-code:{name}")
    second = daemon.ask("two [[recall]]", model=f"claude-code:{name}")
    assert first.conversation == second.conversation == name
    assert second.said == ["one [[say 1]]", "two [[recall]]"]


def test_the_header_and_the_suffix_name_the_same_conversations(daemon: Daemon, name: str) -> None:
    daemon.ask("one [[say 1]]", name)
    assert daemon.ask("two [[recall]]", model=f"claude-code:{name}").said == [
        "one [[say 1]]",
        "two [[recall]]",
    ]


def test_requests_that_name_no_conversation_get_a_new_one_each(daemon: Daemon) -> None:
    first, second = daemon.ask("one [[recall]]"), daemon.ask("two [[recall]]")
    assert first.conversation != second.conversation
    assert (first.said, second.said) == (["one [[recall]]"], ["two [[recall]]"])


def test_an_automatic_conversation_goes_on_by_the_id_that_was_returned(daemon: Daemon) -> None:
    first = daemon.ask("one [[say 1]]")
    assert daemon.ask("two [[recall]]", first.conversation).said == ["one [[say 1]]", "two [[recall]]"]


def test_a_history_that_a_client_brings_along_is_known_to_the_model(daemon: Daemon, name: str) -> None:
    brought = [
        {"role": "user", "content": "old question"},
        {"role": "assistant", "content": "old answer"},
        {"role": "user", "content": "new question [[history]]"},
    ]
    said = daemon.ask(brought, name).said
    assert [(item["role"], item["text"]) for item in said] == [
        ("user", "old question"),
        ("assistant", "old answer"),
        ("user", "new question [[history]]"),
    ]


def test_the_full_history_sent_again_each_turn_reaches_the_model_once(daemon: Daemon, name: str) -> None:
    messages = [{"role": "user", "content": "one [[say first]]"}]
    messages.append({"role": "assistant", "content": daemon.ask(messages, name).text})
    messages.append({"role": "user", "content": "two [[say second]]"})
    messages.append({"role": "assistant", "content": daemon.ask(messages, name).text})
    messages.append({"role": "user", "content": "three [[recall]]"})
    assert daemon.ask(messages, name).said == ["one [[say first]]", "two [[say second]]", "three [[recall]]"]


@pytest.mark.parametrize("wrong", ["", ".dot", "a b", "a/b", "x" * 129, "ü"])
def test_a_bad_id_is_refused(daemon: Daemon, wrong: str) -> None:
    by_suffix = daemon.ask("hi", model=f"claude-code:{wrong}")
    assert (by_suffix.status, by_suffix.error["param"]) == (400, "model")
    if wrong.isascii():
        by_header = daemon.ask("hi", wrong)
        assert (by_header.status, by_header.error["param"]) == (400, "X-Conversation-ID")


def test_the_longest_id_is_taken(daemon: Daemon) -> None:
    longest = "A" + "b-_.9" * 25 + "zz"
    assert daemon.ask("[[say yes]]", longest).conversation == longest


def test_two_requests_at_once_on_one_conversation_run_in_order(
    daemon: Daemon, model: Model, name: str
) -> None:
    with ThreadPoolExecutor() as threads:
        first = threads.submit(daemon.ask, "one [[pause 600]] [[recall]]", name)
        eventually(lambda: model.requests("one"))
        second = threads.submit(daemon.ask, "two [[recall]]", name)
        eventually(lambda: daemon.pool()["queued"])
        third = threads.submit(daemon.ask, "three [[recall]]", name)
        assert first.result().said == ["one [[pause 600]] [[recall]]"]
        assert second.result().said == ["one [[pause 600]] [[recall]]", "two [[recall]]"]
        assert third.result().said[2:] == ["three [[recall]]"]


def test_three_interleaved_conversations_recall_every_text_once_and_in_order(
    daemon: Daemon, name: str
) -> None:
    names = [f"{name}-{which}" for which in "abc"]
    together = threading.Barrier(len(names))

    def talk(conversation: str) -> None:
        said: list[str] = []
        for turn in range(5):
            said.append(f"{conversation} turn {turn} [[recall]]")
            together.wait(60)
            assert daemon.ask(said[-1], conversation).said == said

    with ThreadPoolExecutor() as threads:
        list(threads.map(talk, names))


def test_an_agents_system_message_follows_claude_codes_own(daemon: Daemon, name: str) -> None:
    messages = [{"role": "system", "content": "Mind the gap."}, {"role": "user", "content": "[[system]]"}]
    prompt = daemon.ask(messages, name).text
    assert prompt.rstrip().endswith("Mind the gap.")
    assert "Claude" in prompt.split("Mind the gap.", maxsplit=1)[0]
    assert len(prompt) > 1000


def test_a_chats_system_message_is_the_system_prompt(daemon: Daemon, name: str) -> None:
    messages = [{"role": "developer", "content": "Mind the gap."}, {"role": "user", "content": "[[system]]"}]
    prompt = daemon.ask(messages, name, model="claude-code-chat").text
    assert "Mind the gap." in prompt
    assert len(prompt) < 200


def test_a_chat_has_no_tools_and_an_agent_has(daemon: Daemon, name: str) -> None:
    assert daemon.ask("[[offered]]", f"{name}-chat", model="claude-code-chat").said == []
    assert {"Bash", "Read", "Edit"} <= set(daemon.ask("[[offered]]", f"{name}-agent").said)


@pytest.mark.parametrize("kind", ["claude-code", "claude-code-chat"])
def test_a_system_message_changed_in_mid_conversation_counts_from_the_next_turn(
    daemon: Daemon, model: Model, name: str, kind: str
) -> None:
    def ask(system: str, text: str) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        return daemon.ask(messages, name, model=kind).text

    assert "Be brief." in ask("Be brief.", "one [[system]]")
    changed = ask("Be verbose.", "two [[system]]")
    assert "Be verbose." in changed
    assert "Be brief." not in changed
    ask("Be verbose.", "three [[say 3]]")
    newest = model.requests("three")[-1]
    assert texts(newest) == ["one [[system]]", "two [[system]]", "three [[say 3]]"]
    assert daemon.ask("four [[system]]", name, model=kind).text.count("Be verbose.") == 1


def users_lines(request: Json) -> list[str]:
    """Return all that stands in the user's name, the lines of slash commands included."""
    return [text for role, text in dialogue(request) if role == "user"]


def test_a_model_changed_in_mid_conversation_keeps_the_history_clean(
    daemon: Daemon, model: Model, name: str
) -> None:
    default = daemon.ask("one [[model]]", name).text
    assert "haiku" in daemon.ask("two [[model]]", name, model="haiku").text
    assert daemon.ask("three [[model]]", name).text == default
    assert users_lines(model.requests("three")[-1]) == ["one [[model]]", "two [[model]]", "three [[model]]"]


def test_a_conversation_begun_with_another_model_has_a_clean_history(
    daemon: Daemon, model: Model, name: str
) -> None:
    assert "haiku" in daemon.ask("one [[model]]", name, model="haiku").text
    assert "haiku" in daemon.ask("two [[model]]", name, model="haiku").text
    assert users_lines(model.requests("two")[-1]) == ["one [[model]]", "two [[model]]"]


def test_files_are_created_and_edited_in_the_workspace(daemon: Daemon, name: str) -> None:
    file = daemon.workspace / f"{name}.txt"
    daemon.ask(f'[[tool Bash {{"command": "echo hello > {file.name}"}}]] [[say made]]', name)
    assert file.read_text() == "hello\n"
    edit = f'{{"file_path": "{file}", "old_string": "hello", "new_string": "goodbye"}}'
    answer = daemon.ask(f'[[tool Read {{"file_path": "{file}"}}]] [[tool Edit {edit}]] [[say edited]]', name)
    assert answer.text == "edited"
    assert file.read_text() == "goodbye\n"
