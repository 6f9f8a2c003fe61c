"""llm, the command line: prompts, conversations, functions of Python, schemas and images."""

import base64
import json
from collections.abc import Callable

import pytest

from tests.clients.install import python_packages
from tests.clients.library import DOT, calls, document
from tests.clients.programs import Home
from tests.clients.readme import block
from tests.support.client import newest, reached
from tests.support.daemon import Model

pytestmark = pytest.mark.clients

FUNCTIONS = '''
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"7 degrees in {city}"
'''


Llm = Callable[..., str]


@pytest.fixture
def llm(home: Home) -> Llm:
    """Return a function that runs `llm` and returns what it says."""
    program = python_packages("llm==0.36") / "bin" / "llm"
    settings = home.path / ".config" / "io.datasette.llm"
    settings.mkdir(parents=True)
    (settings / "extra-openai-models.yaml").write_text(block("llm", home.base_url))

    def run(*arguments: str, kind: str = "claude-code-chat") -> str:
        return home.run(program, "-m", kind, *arguments).ok().strip()

    return run


@pytest.mark.parametrize("flags", [[], ["--no-stream"]])
def test_it_answers(llm: Llm, flags: list[str]) -> None:
    assert llm(*flags, "[[words 3]]", kind="claude-code") == "w0 w1 w2"


def test_it_goes_on_with_a_conversation(llm: Llm, model: Model, name: str) -> None:
    llm("-s", "Be brief.", f"{name} one")
    assert json.loads(llm("-c", f"{name} two [[recall]]")) == [f"{name} one", f"{name} two [[recall]]"]
    body = newest(model, f"{name} two [[recall]]")
    assert [role for role, _ in reached(body)] == ["user", "assistant", "user"]
    assert len({str(it["metadata"]) for it in model.requests(name)}) == 1


def test_an_image_is_seen(llm: Llm, home: Home) -> None:
    picture = home.work / "dot.png"
    picture.write_bytes(base64.b64decode(DOT))
    assert llm("-a", str(picture), "[[images]]") == "1"


def test_a_function_is_called(llm: Llm, home: Home) -> None:
    functions = home.work / "functions.py"
    functions.write_text(FUNCTIONS)
    heard = llm("--functions", str(functions), f"{calls('Oslo')} [[result]] {calls('Rome')} [[result]]")
    assert heard.replace("7 degrees in ", " ").split() == ["Oslo", "Rome"]


def test_it_goes_on_after_functions(llm: Llm, home: Home, model: Model, name: str) -> None:
    functions = home.work / "functions.py"
    functions.write_text(FUNCTIONS)
    llm("--functions", str(functions), f"{name} {calls('Oslo', 'Rome')} [[result]]")
    heard = llm("-c", "--functions", str(functions), f"{name} [[recall]]")
    assert len(json.loads(heard)) == 2
    said = reached(newest(model, f"{name} [[recall]]"))
    assert [text for _, text in said if text.startswith("-> ")] == [
        "-> 7 degrees in Oslo",
        "-> 7 degrees in Rome",
    ]
    assert len({str(it["metadata"]) for it in model.requests(name)}) == 1


def test_a_tool_of_its_own_is_called(llm: Llm) -> None:
    assert llm("-T", "llm_version", "[[tool llm_version]] [[result]]").endswith("0.36")


@pytest.mark.parametrize("flags", [[], ["--no-stream"]])
def test_a_document_has_the_schema(llm: Llm, flags: list[str]) -> None:
    heard = llm(*flags, "--schema", "city, degrees int", document({"city": "Oslo", "degrees": 7}))
    assert json.loads(heard) == {"city": "Oslo", "degrees": 7}
