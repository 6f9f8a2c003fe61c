"""Programs as their users install them: `python -m pytest -m clients` (pip needs the network)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.client import assistant, newest, reached, told, user
from tests.support.daemon import Daemon, Model

pytestmark = pytest.mark.clients

LANGCHAIN = """
import sys
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

url, *questions = sys.argv[1:]
chat = ChatOpenAI(base_url=url, api_key="none", model="claude-code", max_retries=0, streaming=True)
messages = []
for question in questions:
    messages.append(HumanMessage(question))
    messages.append(chat.invoke(messages))
    print(messages[-1].content)
"""

LITELLM = """
import sys
import litellm

litellm.suppress_debug_info = True  # it goes to stdout
url, *questions = sys.argv[1:]
options = {"model": "openai/claude-code", "api_base": url, "api_key": "none", "max_retries": 0}
messages = []
for number, question in enumerate(questions):
    messages.append({"role": "user", "content": question})
    if number % 2:
        answer = litellm.completion(messages=messages, **options)
    else:
        stream = litellm.completion(messages=messages, stream=True, **options)
        answer = litellm.stream_chunk_builder(list(stream), messages=messages)
    messages.append(answer.choices[0].message.model_dump())
    print(messages[-1]["content"])
"""


@pytest.mark.parametrize(("package", "program"), [("langchain-openai", LANGCHAIN), ("litellm", LITELLM)])
def test_a_chat_of_five_turns_stays_on_one_worker(
    daemon: Daemon, model: Model, tmp_path: Path, name: str, package: str, program: str
) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    questions = [f"{name} {turn} [[think hm]] [[recall]]" for turn in range(5)]
    command = [python, "-c", program, f"{daemon.base_url}/v1", *questions]
    answers = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [json.loads(answer) for answer in answers] == [questions[: n + 1] for n in range(5)]
    said = [it for pair in zip(map(user, questions), map(assistant, answers), strict=True) for it in pair]
    assert reached(newest(model, questions[-1])) == told(said[:-1])
    assert len({str(newest(model, question)["metadata"]) for question in questions}) == 1
