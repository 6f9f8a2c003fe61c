"""Records what the real CLI writes in a turn: `python -m tests.support.record`.

The transcripts in tests/data are such recordings, against the scripted model; the name of each says what
its turn does. Record them again when the CLI changes.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Final
from uuid import UUID

from claude_coded.claude.launch import Launch, arguments, environment, find_binary
from claude_coded.claude.protocol import Protocol, Setup, message_line
from claude_coded.listener import Listener, bind_tcp
from claude_coded.offline import OfflineModel
from claude_coded.turn import Message, Role

DATA: Final = Path(__file__).parent.parent / "data"
TURN: Final = str(UUID(int=7))
TURNS: Final = {
    "turn": "[[words 2]]",
    "text_thinking_tools": '[[think let me see]] [[say Looking.]] [[tool Bash {"command":"echo one"}]] '
    '[[tool Bash {"command":"exit 3"}]] [[say Two commands later.]]',
    "broken_stream": "[[words 6]] [[cut times 1]] [[words 3]]",
    "stream_error": "[[words 6]] [[error 529 times 1]] [[words 3]]",
    "overloaded": "[[error 529]]",
    "refused_key": "[[error 401]]",
    "too_long": "[[error 400 saying prompt is too long: 210000 tokens > 200000 maximum]]",
    "token_limit": "[[words 4]] [[stop max_tokens]] [[words 4]]",
    "refusal": "[[words 4]] [[stop refusal]] [[say I cannot help with that.]]",
    "subagent": '[[tool Agent {"description":"look","prompt":"[[say hidden text]]",'
    '"subagent_type":"general-purpose","run_in_background":false}]] [[say The agent is back.]]',
}


async def record(name: str, script: str, url: str, directory: Path) -> None:
    """Run one turn in a process of its own and keep its lines."""
    launch = Launch(agent=True, workspace=directory, permission_mode="bypassPermissions")
    base = {
        "HOME": str(directory),
        "PATH": "/usr/bin:/bin",
        "IS_SANDBOX": "1",
        "ANTHROPIC_BASE_URL": url,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    process = await asyncio.create_subprocess_exec(
        find_binary(None, shutil.which),
        *arguments(launch, str(UUID(int=len(name), version=4))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment(base, api_key="sk-ant-test", retries=1),
        cwd=directory,
    )
    assert process.stdin is not None
    process.stdin.write(Protocol().initialize(Setup())[0])
    process.stdin.write(message_line(Message.of(Role.USER, script), TURN, query=True))
    process.stdin.write_eof()
    out, _ = await process.communicate()
    (DATA / f"{name}.jsonl").write_bytes(out.replace(str(directory).encode(), b"/workspace"))


async def main() -> None:
    """Record all turns."""
    DATA.mkdir(exist_ok=True)
    listener = Listener(OfflineModel(), bind_tcp("127.0.0.1", 0))
    serving = asyncio.ensure_future(listener.serve())
    await listener.started()
    for name, script in TURNS.items():
        with tempfile.TemporaryDirectory() as directory:
            await record(name, script, listener.address, Path(directory))
    listener.stop()
    await serving


if __name__ == "__main__":
    asyncio.run(main())
