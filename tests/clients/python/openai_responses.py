"""OpenAI's own SDK by the Responses API: what is not streamed goes on after a response, the rest with items.

Streams are those of the asynchronous client.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import openai
from openai import OpenAI
from pydantic import BaseModel

assert OpenAI
client: Any = eval(os.environ["WRITTEN"]).with_options(max_retries=0)
model = os.environ["MODEL"]

Ask = Callable[[list[Any]], Any]


class Weather(BaseModel):
    city: str
    degrees: int


class Place(BaseModel):
    city: str


FUNCTION = openai.pydantic_function_tool(Place, name="get_weather", description="The weather of a city")
TOOLS: Any = [{"type": "function", **FUNCTION["function"]}]


def by_id(**more: Any) -> Ask:
    """Return how to say what is new, and have the answer."""
    previous: list[str | None] = [None]

    def ask(items: list[Any]) -> Any:
        answer = client.responses.parse(model=model, input=items, previous_response_id=previous[0], **more)
        previous[0] = answer.id
        return answer

    return ask


def by_items(**more: Any) -> Ask:
    """Return how to say all that was said, with what is new, and have the answer of a stream."""
    said: list[Any] = []

    async def streamed() -> Any:
        async with (
            openai.AsyncOpenAI(base_url=client.base_url, api_key=client.api_key, max_retries=0) as other,
            other.responses.stream(model=model, input=said, store=False, **more) as stream,
        ):
            numbers = [event.sequence_number async for event in stream]
            assert numbers == list(range(len(numbers))), numbers
            return await stream.get_final_response()

    def ask(items: list[Any]) -> Any:
        said.extend(items)
        answer = asyncio.run(streamed())
        said.extend(answer.output)
        return answer

    return ask


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def chat(*texts: str) -> Any:
    ask = by_id()
    return {"answers": [ask(user(text)).output_text for text in texts]}


def stream(text: str) -> Any:
    events = client.responses.create(model=model, input=text, stream=True)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    return {"text": "".join(deltas), "deltas": len(deltas)}


def run(texts: tuple[str, ...], ask: Ask) -> Any:
    cities = []
    for text in texts:
        items = user(text)
        while items:
            answer = ask(items)
            items = []
            for call in (item for item in answer.output if item.type == "function_call"):
                place = call.parsed_arguments or Place.model_validate_json(call.arguments)
                cities.append(place["city"] if isinstance(place, dict) else place.city)
                output = f"7 degrees in {cities[-1]}"
                items.append({"type": "function_call_output", "call_id": call.call_id, "output": output})
    found = answer.output_parsed
    return {"text": answer.output_text, "calls": cities, "object": found and found.model_dump()}


def tools(*texts: str) -> Any:
    return run(texts, by_id(tools=TOOLS))


def stream_tools(*texts: str) -> Any:
    return run(texts, by_items(tools=TOOLS))


def document(*texts: str) -> Any:
    return run(texts, by_id(text_format=Weather))


def stream_document(*texts: str) -> Any:
    return run(texts, by_items(text_format=Weather))


def document_by_tools(text: str) -> Any:
    return run((text,), by_id(tools=TOOLS, text_format=Weather))


def look(text: str, image: str, pdf: str) -> Any:
    parts = [
        {"type": "input_text", "text": text},
        {"type": "input_image", "image_url": f"data:image/png;base64,{image}", "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{pdf}"},
    ]
    return {"text": by_id()([{"role": "user", "content": parts}]).output_text}


def failure(text: str) -> Any:
    try:
        client.responses.create(model=model, input=text)
    except openai.APIStatusError as error:
        return {"error": type(error).__name__, "status": error.status_code, "code": error.code}
    return {}


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
