"""Pydantic AI: an agent with a function, whose answer is text or an object."""

import asyncio
import json
import os
import sys
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

model: Any = eval(os.environ["WRITTEN"])
cities: list[str] = []


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    degrees: int


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    cities.append(city)
    return f"7 degrees in {city}"


def agent(kind: Any) -> Any:
    return Agent(model, tools=[get_weather], output_type=kind, instructions="Be brief.", retries=0)


async def drop(_: Any, events: Any) -> None:
    async for _event in events:
        pass


async def tools(*texts: str, **more: Any) -> Any:
    done = None
    for text in texts:
        history = done.all_messages() if done else None
        done = await agent(str).run(text, message_history=history, **more)
    return {"text": done and done.output, "calls": cities}


async def stream_tools(*texts: str) -> Any:
    return await tools(*texts, event_stream_handler=drop)


async def document(text: str, kind: Any = None) -> Any:
    return {
        "object": (await agent(kind or NativeOutput(Weather)).run(text)).output.model_dump(),
        "calls": cities,
    }


async def document_by_function(text: str) -> Any:
    return await document(text, Weather)


async def stream_document(text: str) -> Any:
    async with agent(NativeOutput(Weather)).run_stream(text) as run:
        parts = [part.model_dump() async for part in run.stream_output(debounce_by=None)]
    return {"object": parts[-1], "calls": cities}


assert OpenAIChatModel
assert OpenAIResponsesModel
assert OpenAIProvider
print(json.dumps(asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))))
