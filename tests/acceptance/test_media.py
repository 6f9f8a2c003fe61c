"""Images and documents: what a client shows the model is what the model sees, where the client put it."""

import asyncio
import base64
import shutil
import struct
import zlib
from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from claude_coded.ask import Ask
from claude_coded.claude.launch import Launch, environment, find_binary
from claude_coded.claude.protocol import Outfit, Setup
from claude_coded.turn import Document, Image, Message, Role, Text, ToolCall, ToolOutcome, TurnFinished
from claude_coded.worker import Cli, Watch, Worker
from tests.acceptance.conftest import Start
from tests.acceptance.test_requests import refused
from tests.support.client import assistant, call, newest, user
from tests.support.daemon import Daemon, Json, Model, eventually

IMAGES = {
    file.suffix[1:]: file.read_bytes() for file in (Path(__file__).parents[1] / "data/images").iterdir()
}
SHOWN = ("png", "jpeg", "gif", "webp")
PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj
trailer<</Root 1 0 R>>
%%EOF
"""
Shown = tuple[str, str]
"""A media type and the digest of the data, which may be large."""


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def shown(media_type: str, data: bytes) -> Shown:
    return media_type, sha256(data).hexdigest()


def image_shown(kind: str) -> Shown:
    return shown(f"image/{kind}", IMAGES[kind])


def image_part(kind: str, data: bytes) -> Json:
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{base64_of(data)}"}}


def file_part(name: str, data: bytes) -> Json:
    data_url = f"data:application/pdf;base64,{base64_of(data)}"
    return {"type": "file", "file": {"filename": name, "file_data": data_url}}


def text_part(text: str) -> Json:
    return {"type": "text", "text": text}


def png(width: int, height: int) -> bytes:
    """Return a black picture."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def size_of(data: bytes) -> tuple[int, int]:
    """Return a PNG's width and height."""
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def seen(body: Json) -> list[Any]:
    """Return what the model was sent, media as type and digest, a tool's results as a list."""
    messages = [message for message in body["messages"] if message["role"] != "system"]
    return [it for message in messages for it in _seen(message["content"])]


def _seen(content: Any) -> Iterator[Any]:
    blocks: list[Json] = [text_part(content)] if isinstance(content, str) else content
    for block in blocks:
        if block["type"] == "tool_result":
            yield list(_seen(block["content"]))
        elif block["type"] in {"image", "document"}:
            yield shown(block["source"]["media_type"], base64.b64decode(block["source"]["data"]))
        elif block["type"] == "text" and not block["text"].startswith(
            ("<system-reminder>", "[Image: source: ")
        ):
            yield block["text"].strip()


# Images ------------------------------------------------------------------------------------------------


class Talk:
    """A client of images, which knows what the model has to be sent."""

    def __init__(self, daemon: Daemon, model: Model, kind: str) -> None:
        self.daemon, self.model, self.kind = daemon, model, kind
        self.messages: list[Json] = []
        self.sent: list[Any] = []
        self.conversation = ""
        self.pid = 0

    def add(self, message: Json, *sent: Any) -> None:
        """Add a message, and what the model has to be sent of it."""
        self.messages.append(message)
        self.sent += sent

    def ask(self, text: str) -> None:
        """Ask, streamed; check what reached the model and where."""
        self.add(user(text), text)
        with self.daemon.stream(self.messages, model=self.kind) as stream:
            stream.rest()
            self.conversation = stream.conversation
        assert seen(newest(self.model, text)) == self.sent
        self.add(assistant(stream.text), stream.text)
        self.pid = self.daemon.worker_of(self.model.session(text)).pid

    def goes_on(self, name: str) -> None:
        """Check that later turns match: on the hot process, and after an eviction."""
        first = self.conversation, self.pid
        self.ask(f"{name} hot [[say hot]]")
        assert (self.conversation, self.pid) == first
        self.daemon.settled()
        assert self.daemon.delete(f"/conversations/{self.conversation}").ok
        eventually(lambda: self.pid not in {worker.pid for worker in self.daemon.workers()})
        self.ask(f"{name} cold [[say cold]]")
        assert self.conversation == first[0]


@pytest.fixture(params=["claude-code", "claude-code-chat"])
def talk(daemon: Daemon, model: Model, request: pytest.FixtureRequest) -> Talk:
    return Talk(daemon, model, request.param)


def test_images_of_a_question_reach_the_model_as_they_are(talk: Talk, name: str) -> None:
    parts = [part for kind in SHOWN for part in (text_part(f"a {kind}"), image_part(kind, IMAGES[kind]))]
    talk.add(user(parts), *(it for kind in SHOWN for it in (f"a {kind}", image_shown(kind))))
    talk.ask(f"{name} look [[say seen]]")
    talk.goes_on(name)


def test_images_of_a_history_and_of_tools_reach_the_model_as_they_are(talk: Talk, name: str) -> None:
    square = IMAGES["png"]
    talk.add(user([image_part("png", square), text_part(f"{name} this")]), image_shown("png"), f"{name} this")
    talk.add(assistant("fine"), "fine")
    talk.add(user(f"{name} draw"), f"{name} draw")
    talk.add(assistant(None, tool_calls=[call(1, "draw")]))
    results = [text_part("drawn"), *(image_part(kind, IMAGES[kind]) for kind in SHOWN), text_part("there")]
    known = ["drawn", *(image_shown(kind) for kind in SHOWN), "there"]
    talk.add({"role": "tool", "tool_call_id": "call_1", "content": results}, known)
    talk.add(assistant("good"), "good")
    talk.ask(f"{name} look [[say seen]]")
    talk.goes_on(name)


def test_documents_of_a_question_a_history_and_of_tools_reach_the_model(talk: Talk, name: str) -> None:
    pdf, part = shown("application/pdf", PDF), file_part("a.pdf", PDF)
    talk.add(user([text_part(f"{name} this"), part, text_part("so")]), f"{name} this", pdf, "so")
    talk.add(assistant("fine"), "fine")
    talk.add(user(f"{name} print"), f"{name} print")
    talk.add(assistant(None, tool_calls=[call(1, "print")]))
    talk.add({"role": "tool", "tool_call_id": "call_1", "content": [text_part("done"), part]}, ["done", pdf])
    talk.add(assistant("good"), "good")
    talk.add(user([part, text_part("and that")]), pdf, "and that")
    talk.ask(f"{name} read [[say read]]")
    talk.goes_on(name)


def test_a_document_that_has_changed_is_seen_as_it_is_now(talk: Talk, name: str) -> None:
    for data in (PDF, PDF + b"%"):
        talk.messages[:1] = [user([text_part(f"{name} this"), file_part("a.pdf", data)])]
        talk.sent[:2] = [f"{name} this", shown("application/pdf", data)]
        talk.ask(f"{name} {len(data)} [[say read]]")


def test_images_by_url_are_refused_until_the_operator_allows_them(daemon: Daemon, model: Model) -> None:
    part = {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}}
    refused(daemon.ask([user([part])]), 400, "messages", "unsupported_parameter")
    assert not model.requests()


def test_images_of_this_machine_are_never_fetched(start: Start, model: Model) -> None:
    daemon = start(CLAUDE_CODED_FETCH_IMAGES="true", POOL_SIZE=1)
    for host in (daemon.base_url, model.url, "http://169.254.169.254", "http://[::ffff:127.0.0.1]"):
        answer = daemon.ask([user([{"type": "image_url", "image_url": {"url": f"{host}/health"}}])])
        refused(answer, 400, "messages", None)
        assert "no public web server" in answer.error["message"]
    assert not model.requests()


def test_a_large_image_is_made_smaller_by_the_cli_and_still_known(
    daemon: Daemon, model: Model, name: str
) -> None:
    """Claude Code scales a user's images to 2000 pixels a side; its API would refuse many larger ones."""
    parts = [image_part("png", png(2000, 1000)), image_part("png", png(4000, 1000))]
    messages = [user([*parts, text_part(f"{name} look [[say seen]]")])]
    first = daemon.ask(messages)
    blocks = [block for block in user_blocks(model.requests(name)[-1]) if block["type"] == "image"]
    kept, scaled = (base64.b64decode(block["source"]["data"]) for block in blocks)
    assert kept == png(2000, 1000)
    assert size_of(scaled) == (2000, 500)
    messages += [first.message, user(f"{name} again [[say again]]")]
    assert daemon.ask(messages).conversation == first.conversation


def test_images_are_forgotten_with_their_conversation(daemon: Daemon, model: Model, name: str) -> None:
    """Claude Code puts them into files, of which it tells the model, and leaves these there."""
    answer = daemon.ask([user([image_part("png", IMAGES["png"]), text_part(f"{name} [[say seen]]")])])
    texts = [block.get("text", "") for block in user_blocks(model.requests(name)[-1])]
    (file,) = (
        Path(text.split(": source: ")[1][:-1]) for text in texts if text.startswith("[Image: source: ")
    )
    assert file.read_bytes() == IMAGES["png"]
    assert daemon.delete(f"/conversations/{answer.conversation}?purge=true").ok
    assert not file.parent.parent.exists()


# Documents, in a worker --------------------------------------------------------------------------------


Say = Callable[..., Awaitable[None]]


async def talk_to(launch: Launch, model: Model, home: Path, turns: Callable[[Say], Awaitable[None]]) -> str:
    """Run turns in a process of its own; return its session."""
    base = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "IS_SANDBOX": "1",
        "ANTHROPIC_BASE_URL": model.url,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    cli = Cli(find_binary(None, shutil.which), environment(base, api_key="sk-ant-test", retries=0), 0)
    watch = Watch(*[lambda *_: None] * 8)
    worker = Worker(1, launch, cli, watch)
    await worker.start()
    outfits = [Outfit(Setup(resumed=launch.session is not None)), None, None]

    async def say(*messages: Message) -> None:
        seeds = [(message, str(uuid4())) for message in messages[:-1]]
        turn = await worker.begin(Ask(messages[-1], str(uuid4()), outfit=outfits.pop(0), seeds=seeds))
        while not any(isinstance(event, TurnFinished) for event in await turn.take()):
            pass
        assert worker.settle()

    try:
        await turns(say)
    finally:
        await worker.stop()
    return worker.session


@pytest.mark.parametrize("agent", [True, False])
def test_documents_reach_the_model_whole_and_in_place(model: Model, tmp_path: Path, agent: bool) -> None:
    document = Document("application/pdf", base64_of(PDF), "a.pdf")
    square = Image("image/png", base64_of(IMAGES["png"]))
    launch = Launch(agent, tmp_path, "bypassPermissions")

    async def first(say: Say) -> None:
        await say(
            Message(Role.USER, (Text("before"), document, Text("after"))),
            Message.of(Role.ASSISTANT, "read"),
            Message.of(Role.USER, "draw"),
            Message(Role.ASSISTANT, (ToolCall("call_1", "draw", "{}"),)),
            Message(Role.USER, (ToolOutcome("call_1", (document, square, Text("drawn"))),)),
            Message.of(Role.ASSISTANT, "good"),
            Message(Role.USER, (document, Text("seeded [[say 1]]"))),
        )
        await say(Message(Role.USER, (Text("two"), document, Text("hot [[say 2]]"))))

    async def second(say: Say) -> None:
        await say(Message.of(Role.USER, "cold [[say 3]]"))

    session = asyncio.run(talk_to(launch, model, tmp_path, first))
    asyncio.run(talk_to(launch.resuming(session), model, tmp_path, second))
    pdf, drawn = shown("application/pdf", PDF), image_shown("png")
    known = ["before", pdf, "after", "read", "draw", [pdf, drawn, "drawn"], "good", pdf, "seeded [[say 1]]"]
    hot = [*known, "1", "two", pdf, "hot [[say 2]]"]
    assert [seen(body) for body in model.requests()] == [known, hot, [*hot, "2", "cold [[say 3]]"]]
    titles = {block.get("title") for body in model.requests() for block in user_blocks(body)}
    assert titles == {"a.pdf", None}


def test_a_large_document_reaches_the_model(model: Model, tmp_path: Path) -> None:
    data = PDF + b"%" * 5_000_000
    document = Document("application/pdf", base64_of(data))

    async def turns(say: Say) -> None:
        seeded = Message(Role.USER, (document, Text("this")))
        await say(
            seeded, Message.of(Role.ASSISTANT, "read"), Message(Role.USER, (document, Text("[[say 1]]")))
        )

    asyncio.run(talk_to(Launch(False, tmp_path, "bypassPermissions"), model, tmp_path, turns))
    pdf = shown("application/pdf", data)
    assert [seen(body) for body in model.requests()] == [[pdf, "this", "read", pdf, "[[say 1]]"]]


def user_blocks(body: Json) -> list[Json]:
    """Return the blocks of the user's messages."""
    contents = [message["content"] for message in body["messages"] if message["role"] == "user"]
    return [block for content in contents if isinstance(content, list) for block in content]
