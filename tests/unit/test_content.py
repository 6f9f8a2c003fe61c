"""Content parts: images and files."""

import base64
from typing import Any

import pytest

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai import content
from claude_coded.openai.chat import parse_chat
from claude_coded.turn import Document, Image, Part, RemoteImage, Text, ToolOutcome
from tests.unit.test_chat import CALLS, HELLO, body, image, result

FILE = "messages[0].content[0].file"
URL = "messages[0].content[0].image_url.url"
PDF = "data:application/pdf;base64,AAAA"


def file(**fields: Any) -> dict[str, Any]:
    return {"type": "file", "file": fields}


def asked(part: dict[str, Any]) -> tuple[Part, ...]:
    return parse_chat(body(messages=[{"role": "user", "content": [part]}])).messages[0].parts


@pytest.mark.parametrize(
    ("part", "parsed"),
    [
        (image("data:image/png;base64,AA=="), Image("image/png", "AA==")),
        (image("data:image/jpg;base64,AA=="), Image("image/jpeg", "AA==")),
        (image("DATA:Image/WebP;charset=x;BASE64,AA=="), Image("image/webp", "AA==")),
        (image("https://a.example/b.png?c=d"), RemoteImage("https://a.example/b.png?c=d")),
        (image("http://[::1]:8080/b"), RemoteImage("http://[::1]:8080/b")),
        (
            {"type": "image_url", "image_url": {"url": "https://a.example/", "detail": "high"}},
            RemoteImage("https://a.example/"),
        ),
        (file(file_data=PDF), Document("application/pdf", "AAAA")),
        (file(file_data=PDF, filename="a.bin"), Document("application/pdf", "AAAA", "a.bin")),
        (
            file(file_data="AAAA", filename="A.PDF", file_id=None),
            Document("application/pdf", "AAAA", "A.PDF"),
        ),
    ],
)
def test_images_and_files(part: dict[str, Any], parsed: Part) -> None:
    assert asked(part) == (parsed,)


def test_a_tool_may_return_them() -> None:
    parts = [
        {"type": "text", "text": "see"},
        image("https://a.example/"),
        image("data:image/gif;base64,AA=="),
    ]
    parts.append(file(file_data=PDF))
    chat = parse_chat(body(messages=[HELLO, CALLS, result("a", parts), result("b")]))
    outcome = chat.messages[-1].parts[0]
    assert isinstance(outcome, ToolOutcome)
    assert [type(part) for part in outcome.parts] == [Text, RemoteImage, Image, Document]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (image("data:image/bmp;base64,AA=="), URL),
        (image("data:image/png;base64,A"), URL),
        (image("data:image/png;base64,"), URL),
        (image("data:image/png;base64,AA==\n"), URL),
        (image("data:image/png" + ";====" * 1000 + ";base65,AA=="), URL),  # not one that takes for ever
        (image("data:image/png" + ";a=====" * 1000 + ";base65,AA=="), URL),
        (image("data:image/png,AA=="), URL),
        (image("data:image/png;base64"), URL),
        (image(""), URL),
        (image("file:///etc/passwd"), URL),
        (image("FILE:///etc/passwd"), URL),
        (image("ftp://a.example/b"), URL),
        (image("/etc/passwd"), URL),
        (image("https://"), URL),
        (image("https://[a"), URL),
        (image("https://a.example/b c"), URL),
        ({"type": "image_url"}, URL),
        ({"type": "image_url", "image_url": "https://a.example/"}, "messages[0].content[0].image_url"),
        ({"type": "file"}, f"{FILE}.file_data"),
        (file(filename="a.pdf"), f"{FILE}.file_data"),
        (file(file_data="", filename="a.pdf"), f"{FILE}.file_data"),
        (file(file_data="no base64", filename="a.pdf"), f"{FILE}.file_data"),
        (file(file_data="data:application/pdf,AAAA"), f"{FILE}.file_data"),
    ],
)
def test_what_is_wrong_is_named(part: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(part)
    assert (caught.value.param, caught.value.code) == (param, None)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (file(file_id="file-1"), f"{FILE}.file_id"),
        (file(file_data="AAAA", filename="a.txt"), f"{FILE}.file_data"),
        (file(file_data="AAAA"), f"{FILE}.file_data"),
        (file(file_data="data:text/plain;base64,AAAA", filename="a.pdf"), f"{FILE}.file_data"),
        ({"type": "input_audio", "input_audio": {}}, "messages[0].content[0].type"),
        ({"type": "refusal", "refusal": "no"}, "messages[0].content[0].type"),
        ({"type": "hologram"}, "messages[0].content[0].type"),
    ],
)
def test_what_is_not_supported_is_refused(part: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        asked(part)
    assert caught.value.param == param


@pytest.mark.parametrize("role", ["system", "developer", "assistant"])
def test_only_users_and_tools_show_things(role: str) -> None:
    for part in (image("data:image/png;base64,AA=="), file(file_data=PDF)):
        with pytest.raises(UnsupportedParameter) as caught:
            parse_chat(body(messages=[{"role": role, "content": [part]}, HELLO]))
        assert caught.value.param == "messages[0].content[0].type"


def test_what_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MAX_IMAGE_BYTES", 100)
    monkeypatch.setattr(content, "MAX_DOCUMENT_BYTES", 103)
    for size in (99, 100, 101, 102, 103, 104):
        data = base64.b64encode(bytes(size)).decode()
        for part, limit in (
            (image(f"data:image/png;base64,{data}"), 100),
            (file(file_data=data, filename="a.pdf"), 103),
        ):
            if size <= limit:
                asked(part)
            else:
                with pytest.raises(InvalidRequest, match="larger than"):
                    asked(part)


def test_the_limits_are_anthropics() -> None:
    assert (content.MAX_IMAGE_BYTES, content.MAX_DOCUMENT_BYTES) == (5 * 2**20, 32 * 2**20)
