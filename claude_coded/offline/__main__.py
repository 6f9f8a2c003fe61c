"""`python -m claude_coded.offline` serves the scripted Messages API until SIGTERM or SIGINT."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from typing import Final

from claude_coded.listener import Listener, bind_tcp
from claude_coded.offline.app import OfflineModel

STOP_SECONDS: Final = 0.5


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m claude_coded.offline", description="A scripted Messages API."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="TCP port; 0 chooses a free one")
    given = parser.parse_args()
    asyncio.run(_serve(given.host, given.port))


async def _serve(host: str, port: int) -> None:
    listener = Listener(OfflineModel(), bind_tcp(host, port))
    logging.getLogger("_granian").setLevel(logging.CRITICAL)  # a cut connection is no news
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    serving = asyncio.ensure_future(listener.serve())
    await listener.started()
    sys.stdout.write(f"listening on {listener.address}\n")
    sys.stdout.flush()
    await told.wait()
    listener.stop()
    await asyncio.wait({serving}, timeout=STOP_SECONDS)
    os._exit(0)  # replies that hang are cut; and an ordinary exit may abort in the server's native threads


if __name__ == "__main__":
    main()
