"""A program in the place of the CLI that runs it, copies its lines, and notes when they pass.

It needs nothing but the standard library: it is copied to where it is to be found. Beside it, by its name,
are `.real`, the CLI, and `.times`, to which it adds a line for each time: `in` when it has read a message
that begins a turn, `out` right before it passes the first piece of text on, each in nanoseconds of the
monotonic clock. It notes that when the bytes are on their way.
"""

import os
import select
import subprocess
import sys
import time

SIZE = 256 * 1024
ASKED = b'"type":"user"'
TOLD = b'"text_delta"'


def pass_on(data: bytes, into: int) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(into, data) :]


def copy(given: int, taken: int, times: int) -> None:
    """Copy what comes in, to `given`, and what comes of it, from `taken`, until one of the two ends."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(taken, select.POLLIN)
    waits = False
    while True:
        for number, _ in poll.poll():
            data = os.read(number, SIZE)
            now = time.monotonic_ns()
            if not data:
                return
            what = ""
            if number == 0 and ASKED in data:
                what, waits = "in", True
            elif number == taken and waits and TOLD in data:
                what, waits = "out", False
            pass_on(data, given if number == 0 else 1)
            if what:
                os.write(times, f"{what} {now}\n".encode())


def main() -> None:
    """Run the CLI, stamped where it runs turns."""
    real, *arguments = f"{sys.argv[0]}.real", *sys.argv[1:]
    if "stream-json" not in arguments:
        os.execv(real, [real, *arguments])
    times = os.open(f"{sys.argv[0]}.times", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with subprocess.Popen([real, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cli:
        assert cli.stdin is not None
        assert cli.stdout is not None
        try:
            copy(cli.stdin.fileno(), cli.stdout.fileno(), times)
        finally:
            cli.stdin.close()
            cli.terminate()


if __name__ == "__main__":
    main()
