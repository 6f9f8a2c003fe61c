"""OpenAI's own SDK."""

import json
import os
import sys
from typing import Any

import openai
from openai import OpenAI
from pydantic import BaseModel

client = OpenAI(max_retries=0)
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


def tools(text: str) -> Any:
    messages: list[Any] = [{"role": "user", "content": text}]
    cities: list[str] = []
    while True:
        answer = client.chat.completions.parse(model=model, messages=messages, tools=TOOLS)
        choice = answer.choices[0]
        if choice.finish_reason != "tool_calls":
            return {"text": choice.message.content, "calls": cities}
        cities += answer_calls(messages, choice.message)


def stream_tools(text: str) -> Any:
    messages: list[Any] = [{"role": "user", "content": text}]
    cities: list[str] = []
    while True:
        with client.chat.completions.stream(model=model, messages=messages, tools=TOOLS) as stream:
            kinds = {event.type for event in stream}
            choice = stream.get_final_completion().choices[0]
        if choice.finish_reason != "tool_calls":
            return {"text": choice.message.content, "calls": cities}
        assert "tool_calls.function.arguments.done" in kinds, kinds
        cities += answer_calls(messages, choice.message)


def document(text: str) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    answer = client.chat.completions.parse(model=model, messages=messages, response_format=Weather)
    parsed = answer.choices[0].message.parsed
    assert isinstance(parsed, Weather), answer
    return {"object": parsed.model_dump()}


def failure(text: str) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    try:
        client.chat.completions.create(model=model, messages=messages)
    except openai.APIStatusError as error:
        return {"error": type(error).__name__, "status": error.status_code, "code": error.code}
    return {}


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
