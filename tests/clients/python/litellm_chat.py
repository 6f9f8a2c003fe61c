"""LiteLLM, whose users name the server and the model in one."""

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import litellm
from pydantic import BaseModel

litellm.suppress_debug_info = True  # it goes to stdout
written = SimpleNamespace(completion=lambda model, messages, **options: {"model": model, **options})
OPTIONS: dict[str, Any] = {
    **eval(os.environ["WRITTEN"], {"litellm": written, "messages": []}),
    "max_retries": 0,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


class Weather(BaseModel):
    city: str
    degrees: int


def ask(messages: list[Any], *, stream: bool, **more: Any) -> Any:
    """Return the message of an answer, which may have been streamed."""
    answer = litellm.completion(messages=messages, stream=stream, **more, **OPTIONS)
    if stream:
        answer = litellm.stream_chunk_builder(list(answer), messages=messages)
    return answer.choices[0].message


def chat(*texts: str) -> Any:
    messages: list[Any] = []
    for number, text in enumerate(texts):
        messages.append({"role": "user", "content": text})
        messages.append(ask(messages, stream=not number % 2).model_dump())
    return {"answers": [message["content"] for message in messages[1::2]]}


def stream(text: str) -> Any:
    chunks = litellm.completion(messages=[{"role": "user", "content": text}], stream=True, **OPTIONS)
    deltas = [chunk.choices[0].delta.content for chunk in chunks]
    return {"text": "".join(it or "" for it in deltas), "deltas": len([it for it in deltas if it])}


def tools(*texts: str, stream: bool = False, **more: Any) -> Any:
    messages: list[Any] = []
    cities = []
    for text in texts:
        messages.append({"role": "user", "content": text})
        while (answer := ask(messages, stream=stream, tools=TOOLS, tool_choice="auto", **more)).tool_calls:
            messages.append(answer.model_dump())
            for call in answer.tool_calls:
                city = json.loads(call.function.arguments)["city"]
                cities.append(city)
                result = f"7 degrees in {city}"
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        messages.append(answer.model_dump())
    return {"text": answer.content, "calls": cities}


def stream_tools(*texts: str) -> Any:
    return tools(*texts, stream=True)


def document(*texts: str, stream: bool = False) -> Any:
    messages: list[Any] = []
    for text in texts:
        messages.append({"role": "user", "content": text})
        answer = ask(messages, stream=stream, response_format=Weather)
        messages.append(answer.model_dump())
    return as_object(answer.content)


def as_object(text: str) -> Any:
    return {"object": Weather.model_validate_json(text).model_dump()}


def stream_document(*texts: str) -> Any:
    return document(*texts, stream=True)


def document_by_tools(text: str) -> Any:
    heard = tools(text, response_format=Weather)
    return heard | as_object(heard["text"])


def look(text: str, image: str, pdf: str) -> Any:
    parts: Any = [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{pdf}"},
        },
    ]
    return {"text": ask([{"role": "user", "content": parts}], stream=False).content}


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
