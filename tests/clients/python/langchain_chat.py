"""LangChain's chat model for servers like OpenAI's."""

import json
import os
import sys
from typing import Any

from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

model = ChatOpenAI(model=os.environ["MODEL"], max_retries=0)
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
    return {"answers": [message.content for message in messages[1::2]]}


def stream(text: str) -> Any:
    deltas = [chunk.content for chunk in model.stream(text) if chunk.content]
    return {"text": "".join(deltas), "deltas": len(deltas)}


def tools(text: str, *, stream: bool = False) -> Any:
    bound = model.bind_tools([get_weather])
    messages: list[Any] = [HumanMessage(text)]
    while True:
        answer = streamed(bound, messages) if stream else bound.invoke(messages)
        if not answer.tool_calls:
            return {"text": answer.content, "calls": cities}
        messages += [answer, *(get_weather.invoke(call) for call in answer.tool_calls)]


def stream_tools(text: str) -> Any:
    return tools(text, stream=True)


def document(text: str, method: str = "json_schema") -> Any:
    found = model.with_structured_output(Weather, method=method).invoke(text)
    assert isinstance(found, Weather), found
    return {"object": found.model_dump()}


def document_by_function(text: str) -> Any:
    return document(text, "function_calling")


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
