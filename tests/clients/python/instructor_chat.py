"""Instructor: objects from answers, by a function or a schema, asked again if they do not fit."""

import json
import os
import sys
from typing import Any

import instructor
from openai import OpenAI
from pydantic import BaseModel, field_validator

tried: list[int] = []


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    degrees: int

    @field_validator("degrees")
    @classmethod
    def check(cls, value: int) -> int:
        tried.append(value)
        if value > 60:
            raise ValueError(os.environ["COMPLAINT"])
        return value


assert OpenAI
client: Any = eval(os.environ["WRITTEN"])
if "MODE" in os.environ:
    client = instructor.from_openai(client.client, mode=instructor.Mode[os.environ["MODE"]])


def request(text: str, kind: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return {"model": os.environ["MODEL"], "messages": messages, "response_model": kind, "max_retries": 1}


def document(text: str) -> Any:
    return {"object": client.chat.completions.create(**request(text, Weather)).model_dump(), "tried": tried}


def stream_document(text: str) -> Any:
    parts = list(client.chat.completions.create_partial(**request(text, Weather)))
    return {"object": parts[-1].model_dump(), "parts": len(parts)}


def documents(text: str) -> Any:
    made = client.chat.completions.create(**request(text, list[Weather]))
    return {"objects": [item.model_dump() for item in made]}


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
