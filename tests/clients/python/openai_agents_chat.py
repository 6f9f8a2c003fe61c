"""OpenAI's Agents SDK on chat completions: agents with a function, whose answer is text or an object."""

import asyncio
import json
import os
import sys
from typing import Any

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(disabled=True)
model: Any = eval(os.environ["WRITTEN"])
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
    for text in texts:
        history.append({"role": "user", "content": text})
        if stream:
            run: Any = Runner.run_streamed(agent, history)
            async for _ in run.stream_events():
                pass
        else:
            run = await Runner.run(agent, history)
        history = run.to_input_list()
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
assert OpenAIChatCompletionsModel
print(json.dumps(asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))))
