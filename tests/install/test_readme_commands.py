"""What the README says to type, typed as it stands by somebody who has just got the project."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.newcomer import Newcomer, is_free
from tests.support.readme import blocks, commands, inline, programs, section

pytestmark = pytest.mark.install

CHAT = "/v1/chat/completions"
ASKED = re.compile(r'"content": "([^"]*)"')
OFFLINE = "serve --offline"
CALL = '[[tool get_weather {\\"city\\": \\"Oslo\\"}]] [[result]]'
"""The script of a call, to stand in a JSON text."""

WITH_ARGUMENTS = {
    "show": "show first",
    "evict ID": "evict first",
    "interrupt": "interrupt first",
    "top": "top --once",
    "completion": "completion bash",
}
REFUSED = ("approve", "deny")
"""There is no request to answer."""

INTERACTIVE = ("attach", "web")
"""They last until somebody ends them; their own tests do."""


def serve_command(*words: str) -> str:
    """Return the command with which the daemon is started in a way."""
    found = [it for it in commands("") if "claude-coded serve" in it and all(word in it for word in words)]
    assert found, f"the README does not say how to start it with {words}"
    return found[0]


def answer(written: str) -> Any:
    told = json.loads(written)
    assert "choices" in told, told
    return told["choices"][0]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    """The project, installed as the README says."""
    newcomer = Newcomer.arrive(tmp_path_factory.mktemp("readme"))
    if not newcomer.alone and not is_free():
        pytest.skip("port 3000 is in use, and only root can have another network")
    steps = serve_command(OFFLINE).split(" && ")
    newcomer.install(" && ".join(steps[:-1]))
    assert "`pip install openai`" in section("A first conversation")
    newcomer.install("pip install openai")
    return newcomer


@pytest.fixture(scope="module")
def newcomer(installed: Newcomer) -> Iterator[Newcomer]:
    """With a daemon of the scripted model, as the README starts it."""
    with installed.serving(serve_command(OFFLINE).split(" && ")[-1]) as newcomer:
        yield newcomer


def test_a_first_conversation_goes_on_from_curl_to_python(newcomer: Newcomer) -> None:
    (curl, *_) = [it for it in commands("curl") if "X-Conversation-ID" in it]
    name = re.findall(r"X-Conversation-ID: ([\w-]+)", curl)[0]
    first = ASKED.findall(curl)[0]
    assert answer(newcomer.run(curl))["message"]["content"] == f"You said: {first}"

    (program, *_) = programs("from openai import OpenAI")
    assert program.section == "A first conversation"
    then = ASKED.findall(program.text)[0]
    (newcomer.directory / "ask.py").write_text(program.text)
    assert newcomer.run("python ask.py") == f"You said: {then}"

    told = json.loads(newcomer.run(f"curl -s http://127.0.0.1:3000/conversations/{name}"))
    assert [(it["role"], it["content"]) for it in told["messages"]] == [
        ("user", first),
        ("assistant", f"You said: {first}"),
        ("user", then),
        ("assistant", f"You said: {then}"),
    ]


def test_every_curl_is_answered(newcomer: Newcomer) -> None:
    for command in commands("curl"):
        if CHAT in command:
            asked = ASKED.findall(command)[-1]
            assert answer(newcomer.run(command))["message"]["content"] == f"You said: {asked}"


def test_the_function_of_the_curl_example_is_called(newcomer: Newcomer) -> None:
    (command, *_) = [it for it in commands("curl") if '"tools"' in it]
    asked = command.replace(ASKED.findall(command)[0], CALL)
    called = answer(newcomer.run(asked))
    assert called["finish_reason"] == "tool_calls"
    (call,) = called["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Oslo"}
    result = inline('{"role": "tool"').replace("…", call["id"])
    said = f"{json.dumps(called['message'])}, {result}"
    done = answer(newcomer.run(asked.replace('[[result]]"}', f'[[result]]"}}, {said}')))
    assert (done["finish_reason"], done["message"]["content"]) == ("stop", "7 degrees")


def test_the_function_of_the_python_example_is_called(newcomer: Newcomer) -> None:
    """What goes on with another example's client runs after it."""
    more = [it for it in blocks() if it.language == "python" and "tools=tools" in it.text]
    if not more:
        pytest.skip("the README has no such example")
    before = programs("from openai import OpenAI")[0].text
    script = more[0].text.replace(ASKED.findall(more[0].text)[0], CALL)
    program = f"{before}\n{script}\nprint()\nprint(answer.choices[0].message.content)\n"
    (newcomer.directory / "call.py").write_text(program)
    assert newcomer.run("python call.py").splitlines()[-1] == "7 degrees"


def test_the_responses_example_goes_on(newcomer: Newcomer) -> None:
    before = programs("from openai import OpenAI")[0].text
    (example,) = [it for it in blocks() if it.language == "python" and "client.responses" in it.text]
    (newcomer.directory / "respond.py").write_text(f"{before}\n{example.text}\nprint(second.output_text)\n")
    *_, first, second = newcomer.run("python respond.py").splitlines()
    assert first.endswith("You said: What is in this directory?")  # the stream before ends with no line's end
    assert second == "You said: And how large is it?"


def test_the_operators_commands_do_what_they_are_told(newcomer: Newcomer) -> None:
    rows = re.findall(r"^\| (`.*?) \|", section("claude-codectl"), re.MULTILINE)
    told = [re.sub(r" *\[.*?\]…?", "", it) for row in rows for it in re.findall(r"`(.*?)`", row)]
    assert {"status", "workers", "drain", "resume"} <= set(told), told
    for words in told:
        if words.startswith(INTERACTIVE):
            continue
        command = next((full for start, full in WITH_ARGUMENTS.items() if words.startswith(start)), words)
        status = 1 if words.startswith(REFUSED) else 0
        assert newcomer.run(f"claude-codectl {command}", status) or words.startswith("ready"), command


def test_the_operators_examples_are_commands(newcomer: Newcomer) -> None:
    for command in commands("claude-codectl"):
        own = command.split(" && ")[0]  # what comes then is for the machine's own service
        if own.split()[1] in INTERACTIVE:
            continue
        assert newcomer.run(own, 1 if own.split()[1] in REFUSED else 0) or "requests" in own
    newcomer.run("claude-codectl resume")


def test_with_a_key_it_serves_in_the_project(installed: Newcomer) -> None:
    if not installed.alone:
        pytest.skip("without a /run of its own it would be the machine's daemon")
    command = serve_command("ANTHROPIC_API_KEY", "WORKSPACE_DIR").replace("…", "test")
    with installed.serving(command) as newcomer:
        told = json.loads(newcomer.run(inline("curl --unix-socket")))
        assert told["state"] == "ok", told
        config = json.loads(newcomer.run("claude-codectl --json config"))
        assert str(installed.home / "project") in json.dumps(config)
