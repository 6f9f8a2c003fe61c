"""A program in the place of the CLI that hands its pipes over to `tests.support.replaying`, and waits.

It needs nothing but the standard library: it is copied to where the daemon is to find it. The replayer's
socket is beside it, by its name and `.sock`.
"""

import os
import socket
import sys

VERSION = "2.1.331 (Claude Code)"


def main() -> None:
    """Hand the pipes over, and end when the replayer has closed them."""
    if "--version" in sys.argv:
        print(VERSION)
        return
    with socket.socket(socket.AF_UNIX) as replayer:
        replayer.connect(f"{sys.argv[0]}.sock")
        socket.send_fds(replayer, [b"\0"], [0, 1])
        os.close(0)
        os.close(1)
        replayer.recv(1)


if __name__ == "__main__":
    main()
