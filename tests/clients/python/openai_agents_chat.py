"""OpenAI's Agents SDK by either API: agents with a function, whose answer is text or an object."""

import asyncio
import json
import os
import sys
from typing import Any

from agents import (
    Agent,
    Runner,
    function_tool,
    set_default_openai_api,
    set_default_openai_client,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(disabled=True)
eval(os.environ["WRITTEN"])
api: Any = os.environ["API"]
if api:
    set_default_openai_api(api)
model = os.environ["MODEL"]
by_id = bool(os.environ["BY_ID"])
cities: list[str] = []


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    degrees: int


@function_tool
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    cities.append(city)
    return f"7 degrees in {city}"


async def chat(*texts: str, kind: Any = None, stream: bool = False) -> Any:
    other = Agent(name="Other", model=model, instructions="You are the other.")
    agent = Agent(
        name="First",
        model=model,
        instructions="Be brief.",
        tools=[get_weather],
        output_type=kind,
        handoffs=[other],
    )
    history: list[Any] = []
    more: Any = {"auto_previous_response_id": True} if by_id else {}
    for text in texts:
        history.append({"role": "user", "content": text})
        if stream:
            run: Any = Runner.run_streamed(agent, history, **more)
            async for _ in run.stream_events():
                pass
        else:
            run = await Runner.run(agent, history, **more)
        history = run.to_input_list()
        if by_id:
            more["previous_response_id"] = run.last_response_id
            history = []
    return run


async def tools(*texts: str, stream: bool = False) -> Any:
    run = await chat(*texts, stream=stream)
    return {"text": run.final_output, "calls": cities, "agent": run.last_agent.name}


async def document(*texts: str, stream: bool = False) -> Any:
    run = await chat(*texts, kind=Weather, stream=stream)
    return {"object": run.final_output.model_dump(), "calls": cities}


async def stream_tools(*texts: str) -> Any:
    return await tools(*texts, stream=True)


async def stream_document(*texts: str) -> Any:
    return await document(*texts, stream=True)


assert AsyncOpenAI
assert set_default_openai_client
print(json.dumps(asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))))
