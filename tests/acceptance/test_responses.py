"""The Responses API: conversations by `previous_response_id`, tools, streams, and what is kept."""

import json
import threading
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.support.client import reached
from tests.support.daemon import Daemon, Json, Model, eventually
from tests.support.responses import PATH, calls_of, respond, said, streaming, text_of

GET = {"type": "function", "name": "get", "parameters": {"type": "object", "properties": {}}}
PATCH = {"type": "custom", "name": "patch", "description": "Changes files."}
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9aw"
    "AAAABJRU5ErkJggg=="
)


def output(call: Json, text: str) -> Json:
    return {"type": f"{call['type']}_output", "call_id": call["call_id"], "output": text}


# Conversations -----------------------------------------------------------------------------------------


def test_ten_turns_go_on_in_one_process(pool: Daemon, model: Model, name: str) -> None:
    with pool.openai() as client:
        previous, conversations, asked = None, set(), []
        for number in range(10):
            text = f"{name} {number} [[recall]]"
            asked.append(text)
            made = client.responses.create(model="claude-code", input=text, previous_response_id=previous)
            assert json.loads(made.output_text) == asked
            previous = made.id
            assert made.conversation is not None
            conversations.add(made.conversation.id)
    assert len(conversations) == 1
    assert len({pool.worker_of(model.session(text)).pid for text in asked}) == 1


def test_an_earlier_response_can_be_gone_on_after(pool: Daemon, name: str) -> None:
    first = respond(pool, f"{name} one [[say 1]]").body
    second = respond(pool, f"{name} two [[say 2]]", previous_response_id=first["id"]).body
    other = respond(pool, f"{name} three [[recall]]", previous_response_id=first["id"])
    assert said(other) == [f"{name} one [[say 1]]", f"{name} three [[recall]]"]
    again = respond(pool, f"{name} four [[recall]]", previous_response_id=second["id"])
    assert said(again) == [f"{name} one [[say 1]]", f"{name} two [[say 2]]", f"{name} four [[recall]]"]


def test_of_conversations_that_said_the_same_the_response_says_which(pool: Daemon, name: str) -> None:
    first, other = (respond(pool, f"{name} [[say 1]]").body for _ in range(2))
    assert first["conversation"] != other["conversation"]
    after = respond(pool, f"{name} two [[say 2]]", previous_response_id=first["id"]).body
    assert after["conversation"] == first["conversation"]  # the other was used last


def test_a_response_is_gone_on_after_though_its_session_is_lost(
    pool: Daemon, model: Model, name: str
) -> None:
    named = {"X-Conversation-ID": name}
    texts = [f"{name} one [[say 1]]", f"{name} two [[say 2]]"]
    first = respond(pool, texts[0], headers=named).body
    second = respond(pool, texts[1], headers=named, previous_response_id=first["id"]).body
    session, worker = model.session(texts[1]), pool.worker_of(model.session(texts[1]))
    assert pool.delete(f"/conversations/{name}").ok
    eventually(lambda: not worker.is_running())
    (transcript,) = pool.home.glob(f".claude/projects/*/{session}.jsonl")
    transcript.unlink()
    third = respond(pool, f"{name} three [[recall]]", headers=named, previous_response_id=second["id"])
    assert said(third) == [*texts, f"{name} three [[recall]]"]
    assert model.session(f"{name} three") != session


def test_responses_and_their_conversation_survive_a_restart(pool: Daemon, name: str) -> None:
    first = respond(pool, f"{name} one [[say 1]]", instructions="Be brief.", metadata={"a": "b"}).body
    pool.restart()
    assert pool.get(f"{PATH}/{first['id']}").body == first
    second = respond(pool, f"{name} two [[recall]]", previous_response_id=first["id"])
    assert said(second) == [f"{name} one [[say 1]]", f"{name} two [[recall]]"]
    assert second.body["conversation"] == first["conversation"]


def test_instructions_are_of_their_response_and_developer_messages_of_all_after(
    pool: Daemon, name: str
) -> None:
    developer = {"role": "developer", "content": f"{name} rule"}
    user = {"role": "user", "content": f"{name} one [[system]]"}
    chat = {"model": "claude-code-chat"}
    first = respond(pool, [developer, user], instructions=f"{name} once", **chat).body
    assert f"{name} once" in text_of(first)
    assert f"{name} rule" in text_of(first)
    second = respond(pool, f"{name} two [[system]]", previous_response_id=first["id"], **chat).body
    assert f"{name} once" not in text_of(second)
    assert f"{name} rule" in text_of(second)


def test_a_history_that_is_sent_whole_finds_its_conversation(pool: Daemon, model: Model, name: str) -> None:
    items: list[Json] = [{"role": "user", "content": f"{name} one [[think hm]] [[say 1]]"}]
    first = respond(pool, items, store=False, include=["reasoning.encrypted_content"]).body
    items += [*first["output"], {"role": "user", "content": f"{name} two [[recall]]"}]
    second = respond(pool, items, store=False)
    assert said(second) == [f"{name} one [[think hm]] [[say 1]]", f"{name} two [[recall]]"]
    assert second.body["conversation"] == first["conversation"]
    assert reached(model.requests(f"{name} two")[-1])[1] == ("assistant", "1")
    assert pool.get(f"{PATH}/{first['id']}").status == 404
    refused = respond(pool, "go on", previous_response_id=first["id"])
    assert (refused.status, refused.code) == (400, "previous_response_not_found")


def test_chat_completions_and_responses_share_a_conversation(pool: Daemon, name: str) -> None:
    assert respond(pool, f"{name} one [[say 1]]", conversation=name).body["conversation"] == {"id": name}
    assert pool.ask(f"{name} two [[say 2]]", name).text == "2"
    third = respond(pool, f"{name} three [[recall]]", model=f"claude-code:{name}")
    assert said(third) == [f"{name} one [[say 1]]", f"{name} two [[say 2]]", f"{name} three [[recall]]"]
    fourth = respond(pool, f"{name} four [[recall]]", previous_response_id=third.body["id"])
    assert len(said(fourth)) == 4
    assert fourth.conversation == name
    both = respond(pool, "x", conversation=name, previous_response_id=third.body["id"])
    assert (both.status, both.error["param"]) == (400, "previous_response_id")


def test_items_can_be_named_by_their_ids(pool: Daemon, name: str) -> None:
    first = respond(pool, f"{name} one [[say 1]]").body
    listed = pool.get(f"{PATH}/{first['id']}/input_items").body["data"]
    refer = [{"type": "item_reference", "id": item["id"]} for item in (*listed, *first["output"])]
    second = respond(pool, [*refer, {"role": "user", "content": f"{name} two [[recall]]"}])
    assert said(second) == [f"{name} one [[say 1]]", f"{name} two [[recall]]"]
    unknown = respond(pool, [{"type": "item_reference", "id": "msg_1"}])
    assert (unknown.status, unknown.error["param"]) == (400, "input[0].id")


# Tools -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [False, True], ids=["after a response", "in a conversation"])
def test_tools_are_called_and_their_outputs_go_on_with_the_turn(
    pool: Daemon, model: Model, name: str, named: bool
) -> None:
    more: Json = {"tools": [GET, PATCH, {"type": "web_search"}], "model": "claude-code-chat"}
    more |= {"conversation": name} if named else {}
    text = f'{name} [[tool get {{"x": 1}}]] [[tool patch {{"input": "*** a"}}]] [[result]]'
    first = respond(pool, text, **more)
    assert first.headers["X-Claude-Coded-Ignored"] == "tools[2]"
    get, patch = calls_of(first.body)
    assert (get["name"], get["arguments"]) == ("get", '{"x": 1}')
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "patch", "*** a")
    pid = pool.worker_of(model.session(name)).pid
    after = {} if named else {"previous_response_id": first.body["id"]}
    second = respond(pool, [output(get, "7 "), output(patch, "done")], **more, **after)
    assert text_of(second.body).split() == ["7", "done"]
    assert pool.worker_of(model.session(name)).pid == pid


def test_tools_stand_in_namespaces(pool: Daemon, name: str) -> None:
    space = {"type": "namespace", "name": "git", "description": "", "tools": [{**GET, "name": "log"}]}
    first = respond(
        pool, f"{name} [[tool git__log {{}}]] [[result]]", tools=[space], model="claude-code-chat"
    )
    (call,) = calls_of(first.body)
    assert (call["name"], call["namespace"]) == ("log", "git")
    history = [
        {"role": "user", "content": f"{name} [[tool git__log {{}}]] [[result]]"},
        *first.body["output"],
        output(call, "one commit"),
    ]
    second = respond(pool, history, tools=[space], model="claude-code-chat")
    assert text_of(second.body) == "one commit"
    assert second.body["conversation"] == first.body["conversation"]


def test_claudes_own_tools_are_reasoning_and_never_calls(pool: Daemon, name: str) -> None:
    text = f'{name} [[tool Bash {{"command": "echo hi"}}]] [[say done]]'
    with streaming(pool, text, tools=[GET]) as events:
        made = events.last()
    assert [item["type"] for item in made["output"]] == ["reasoning", "message"]
    assert "echo hi" in made["output"][0]["summary"][0]["text"]
    assert text_of(made) == "done"


def test_a_missing_output_is_an_error_that_says_so(pool: Daemon, name: str) -> None:
    more: Json = {"tools": [GET], "model": "claude-code-chat"}
    first = respond(pool, f"{name} [[tool get {{}}]] [[result]]", **more).body
    refused = respond(pool, "never mind", previous_response_id=first["id"], **more)
    assert refused.status == 400
    assert calls_of(first)[0]["call_id"] in refused.error["message"]


# What is asked of the answer ---------------------------------------------------------------------------


class Point(BaseModel):
    x: int
    y: int


def test_an_answer_is_parsed_by_the_sdk(pool: Daemon, name: str) -> None:
    with pool.openai() as client:
        text = f'{name} [[tool StructuredOutput {{"x": 1, "y": 2}}]]'
        made = client.responses.parse(model="claude-code-chat", input=text, text_format=Point)
    assert made.output_parsed == Point(x=1, y=2)


def test_images_and_files_reach_the_model(pool: Daemon, name: str) -> None:
    content = [
        {"type": "input_text", "text": f"{name} [[images]]"},
        {"type": "input_image", "image_url": PNG, "detail": "auto"},
    ]
    assert text_of(respond(pool, [{"role": "user", "content": content}]).body) == "1"


def test_what_is_cut_says_so(pool: Daemon, name: str) -> None:
    with streaming(pool, f"{name} [[max_tokens]] [[stop max_tokens]]", max_output_tokens=50) as events:
        made = events.last()
    assert events.read[-1]["type"] == "response.incomplete"
    assert made["incomplete_details"] == {"reason": "max_output_tokens"}
    assert text_of(made) == "50"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [{"type": "local_shell"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": 1}}}},
            "text.format.schema",
        ),
        ({"include": ["message.output_text.logprobs"]}, "include[0]"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": []}, "input"),
        ({"input": [{"role": "assistant", "content": "a"}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": "b"}]}, "input[0].call_id"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(pool: Daemon, more: Json, param: str) -> None:
    refused = pool.request("POST", PATH, json={"model": "claude-code", "input": "x", **more})
    assert (refused.status, refused.error["param"]) == (400, param)


# Failures, disconnects, cancels ------------------------------------------------------------------------


def test_a_failure_before_the_first_event_has_a_status(pool: Daemon, name: str) -> None:
    refused = respond(pool, f"{name} [[error 400 saying no]]")
    assert refused.status in {400, 502}
    with streaming(pool, f"{name} again [[error 400 saying no]]") as events:
        assert events.response.status_code == refused.status


def test_an_input_that_is_too_long_is_named(pool: Daemon, name: str) -> None:
    refused = respond(pool, f"{name} [[error 400 saying prompt is too long: 3 tokens > 2 maximum]]")
    assert (refused.code, refused.error["param"]) == ("context_length_exceeded", "input")


def test_a_failure_in_the_stream_is_its_last_event(pool: Daemon, name: str) -> None:
    with streaming(pool, f"{name} [[say begun]] [[delay 20]] [[error 400 saying no]]") as events:
        made = events.last()
    assert events.read[-1]["type"] == "response.failed"
    assert (made["status"], made["error"]["code"]) == ("failed", "server_error")
    assert text_of(made) == "begun"
    assert pool.get(f"{PATH}/{made['id']}").body["status"] == "failed"
    refused = respond(pool, "go on", previous_response_id=made["id"])
    assert (refused.status, refused.code) == (400, "previous_response_not_found")


def test_a_client_that_leaves_stops_the_turn(pool: Daemon, name: str) -> None:
    first = respond(pool, f"{name} one [[say 1]]").body
    with streaming(pool, f"{name} two [[say begun]] [[hang]]", previous_response_id=first["id"]) as events:
        events.until("begun")
    pool.settled()
    left = events.read[0]["response"]["id"]
    eventually(lambda: pool.get(f"{PATH}/{left}").status == 404)
    third = respond(pool, f"{name} three [[recall]]", previous_response_id=first["id"])
    assert said(third) == [f"{name} one [[say 1]]", f"{name} three [[recall]]"]


def test_a_response_is_cancelled_while_it_is_made(pool: Daemon, name: str) -> None:
    with streaming(pool, f"{name} [[say begun]] [[hang]]") as events:
        events.until("begun")
        id_ = events.read[0]["response"]["id"]
        assert pool.get(f"{PATH}/{id_}").body["status"] == "in_progress"
        cancelled = pool.request("POST", f"{PATH}/{id_}/cancel").body
        assert (cancelled["status"], text_of(cancelled)) == ("cancelled", "begun")
        made = events.last()
    assert made["status"] == "cancelled"
    assert pool.get(f"{PATH}/{id_}").body == made
    pool.settled()
    after = respond(pool, f"{name} again [[say ok]]")
    assert text_of(after.body) == "ok"


def test_a_response_that_is_not_streamed_is_cancelled(pool: Daemon, model: Model, name: str) -> None:
    answers: list[Any] = []
    text = f"{name} [[say begun]] [[hang]]"
    asking = threading.Thread(target=lambda: answers.append(respond(pool, text, conversation=name)))
    asking.start()
    eventually(lambda: model.requests(name))
    assert pool.control("POST", f"/v1/conversations/{name}/interrupt").status_code == 200
    asking.join()
    assert (answers[0].status, answers[0].code) == (409, "turn_interrupted")


# What is kept ------------------------------------------------------------------------------------------


def test_what_is_kept_can_be_read_and_forgotten(pool: Daemon, name: str) -> None:
    with pool.openai() as client:
        made = client.responses.create(
            model="claude-code",
            input=[
                {"role": "user", "content": f"{name} a"},
                {"role": "user", "content": f"{name} [[say b]]"},
            ],
        )
        assert client.responses.retrieve(made.id) == made
        listed = client.responses.input_items.list(made.id, order="asc", limit=1)  # it pages
        told = [item.model_dump()["content"][0]["text"] for item in listed]
        assert told == [f"{name} a", f"{name} [[say b]]"]
        assert client.responses.cancel(made.id).status == "completed"
        client.responses.delete(made.id)
        for gone in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
            with pytest.raises(openai.NotFoundError):
                gone(made.id)
    assert made.conversation is not None
    assert pool.shown(made.conversation.id)["turns"] == 1  # what was said is still there


def test_equal_requests_with_a_key_get_one_response(pool: Daemon, model: Model, name: str) -> None:
    headers = {"Idempotency-Key": name}
    first = respond(pool, f"{name} [[say 1]]", headers=headers)
    second = respond(pool, f"{name} [[say 1]]", headers=headers)
    assert second.body == first.body
    assert len(model.requests(f"{name} [[say 1]]")) == 1
    assert pool.ask(f"{name} [[say 1]]", headers=headers).status == 409
    assert pool.delete(f"{PATH}/{first.body['id']}").ok
    assert respond(pool, f"{name} [[say 1]]", headers=headers).body == first.body
    assert pool.get(f"{PATH}/{first.body['id']}").status == 404
