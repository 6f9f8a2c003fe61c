"""LangChain's chat model for servers like OpenAI's, by either API."""

import json
import os
import sys
from typing import Any

from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

assert ChatOpenAI
model: Any = eval(os.environ["WRITTEN"])
cities: list[str] = []


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    degrees: int


@tool
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    cities.append(city)
    return f"7 degrees in {city}"


def streamed(runnable: Any, messages: list[Any]) -> AIMessageChunk:
    chunks = list(runnable.stream(messages))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def chat(*texts: str) -> Any:
    messages: list[Any] = []
    for number, text in enumerate(texts):
        messages.append(HumanMessage(text))
        messages.append(model.invoke(messages) if number % 2 else streamed(model, messages))
    return {"answers": [message.text for message in messages[1::2]]}


def stream(text: str) -> Any:
    deltas = [chunk.text for chunk in model.stream(text) if chunk.text]
    return {"text": "".join(deltas), "deltas": len(deltas)}


def tools(*texts: str, stream: bool = False, **more: Any) -> Any:
    bound = model.bind_tools([get_weather], **more)
    messages: list[Any] = []
    for text in texts:
        messages.append(HumanMessage(text))
        while (answer := streamed(bound, messages) if stream else bound.invoke(messages)).tool_calls:
            messages += [answer, *(get_weather.invoke(call) for call in answer.tool_calls)]
        messages.append(answer)
    found = answer.additional_kwargs.get("parsed")
    return {"text": answer.text, "calls": cities, "object": found and found.model_dump()}


def stream_tools(*texts: str) -> Any:
    return tools(*texts, stream=True)


def document(*texts: str, method: str = "json_schema", stream: bool = False) -> Any:
    structured = model.with_structured_output(Weather, method=method, include_raw=True)
    messages: list[Any] = []
    for text in texts:
        messages.append(HumanMessage(text))
        heard = streamed_dict(structured, messages) if stream else structured.invoke(messages)
        messages.append(heard["raw"])
    assert isinstance(heard["parsed"], Weather), heard
    return {"object": heard["parsed"].model_dump()}


def streamed_dict(runnable: Any, messages: list[Any]) -> Any:
    whole: dict[str, Any] = {}
    for chunk in runnable.stream(messages):
        for key, value in chunk.items():
            whole[key] = whole[key] + value if key == "raw" and key in whole else value
    return whole


def stream_document(*texts: str) -> Any:
    return document(*texts, stream=True)


def document_by_function(text: str) -> Any:
    return document(text, method="function_calling")


def document_by_tools(text: str) -> Any:
    return tools(text, response_format=Weather, strict=True)


def look(text: str, image: str, pdf: str) -> Any:
    parts: Any = [
        {"type": "text", "text": text},
        {"type": "image", "base64": image, "mime_type": "image/png"},
        {"type": "file", "base64": pdf, "mime_type": "application/pdf", "filename": "a.pdf"},
    ]
    return {"text": model.invoke([HumanMessage(parts)]).text}


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
