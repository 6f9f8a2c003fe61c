"""OpenAI's own SDK."""

import json
import os
import sys
from typing import Any

import openai
from openai import OpenAI
from pydantic import BaseModel

assert OpenAI
client: Any = eval(os.environ["WRITTEN"]).with_options(max_retries=0)
model = os.environ["MODEL"]


class Weather(BaseModel):
    city: str
    degrees: int


class Place(BaseModel):
    city: str


TOOLS = [openai.pydantic_function_tool(Place, name="get_weather", description="The weather of a city")]


def chat(*texts: str) -> Any:
    messages: list[Any] = []
    for number, text in enumerate(texts):
        messages.append({"role": "user", "content": text})
        if number % 2:
            answer = client.chat.completions.create(model=model, messages=messages)
            message = answer.choices[0].message
        else:
            with client.chat.completions.stream(model=model, messages=messages) as stream:
                message = stream.get_final_completion().choices[0].message
        messages.append(message)
    return {"answers": [message.content for message in messages[1::2]]}


def stream(text: str) -> Any:
    deltas = []
    messages: Any = [{"role": "user", "content": text}]
    options = {"include_usage": True}
    for chunk in client.chat.completions.create(
        model=model, messages=messages, stream=True, stream_options=options
    ):
        if chunk.choices and chunk.choices[0].delta.content:
            deltas.append(chunk.choices[0].delta.content)
    assert chunk.usage, chunk
    assert not chunk.choices, chunk
    return {"text": "".join(deltas), "deltas": len(deltas)}


def answer_calls(messages: list[Any], message: Any) -> list[str]:
    cities = []
    messages.append(message)
    for call in message.tool_calls:
        place = Place.model_validate_json(call.function.arguments)
        assert call.function.parsed_arguments in (None, place), call
        cities.append(place.city)
        result = f"7 degrees in {place.city}"
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return cities


def parsed(messages: list[Any], **more: Any) -> Any:
    """Return the answer's choice, not streamed."""
    return client.chat.completions.parse(model=model, messages=messages, **more).choices[0]


def streamed(messages: list[Any], **more: Any) -> Any:
    """Return the answer's choice, streamed."""
    with client.chat.completions.stream(model=model, messages=messages, **more) as stream:
        kinds = {event.type for event in stream}
        choice = stream.get_final_completion().choices[0]
    done = "tool_calls.function.arguments.done" if choice.message.tool_calls else "content.done"
    assert done in kinds, kinds
    return choice


def tools(*texts: str, ask: Any = parsed, **more: Any) -> Any:
    messages: list[Any] = []
    cities: list[str] = []
    for text in texts:
        messages.append({"role": "user", "content": text})
        while (choice := ask(messages, tools=TOOLS, **more)).finish_reason == "tool_calls":
            cities += answer_calls(messages, choice.message)
        messages.append(choice.message)
    return {"text": choice.message.content, "calls": cities, "object": as_object(choice.message.parsed)}


def stream_tools(*texts: str) -> Any:
    return tools(*texts, ask=streamed)


def as_object(found: Weather | None) -> Any:
    return found and found.model_dump()


def document(*texts: str, ask: Any = parsed) -> Any:
    messages: list[Any] = []
    for text in texts:
        messages.append({"role": "user", "content": text})
        messages.append(ask(messages, response_format=Weather).message)
    assert isinstance(messages[-1].parsed, Weather), messages
    return {"object": as_object(messages[-1].parsed)}


def stream_document(*texts: str) -> Any:
    return document(*texts, ask=streamed)


def document_by_tools(text: str) -> Any:
    return tools(text, response_format=Weather)


def look(text: str, image: str, pdf: str) -> Any:
    parts: Any = [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{pdf}"},
        },
    ]
    return {"text": parsed([{"role": "user", "content": parts}]).message.content}


def failure(text: str) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    try:
        client.chat.completions.create(model=model, messages=messages)
    except openai.APIStatusError as error:
        return {"error": type(error).__name__, "status": error.status_code, "code": error.code}
    return {}


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
