"""Copies bytes between a CLI's pipes and one TCP client, as they are: the least that may stand between them.

`python relay.py INPUT OUTPUT REST`: the numbers of the pipes, which it has inherited, and the seconds between
two copies of what the CLI says. With none, each line goes out as it comes, and wakes the client; with a
millisecond's rest, many go out at once. It prints the port where it listens, and ends with its client.
"""

import os
import socket
import sys
import threading
import time

SIZE = 256 * 1024


def give(client: socket.socket, into: int) -> None:
    """Give the CLI what the client says, until one of the two ends."""
    while data := client.recv(SIZE):
        os.write(into, data)
    os._exit(0)


def take(client: socket.socket, out: int, rest: float) -> None:
    """Give the client what the CLI says: one call to the kernel each time, and no byte comes up here."""
    number = client.fileno()
    while os.splice(out, number, SIZE):
        if rest:
            time.sleep(rest)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        with listening.accept()[0] as only:
            only.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=give, args=(only, int(sys.argv[1])), daemon=True).start()
            take(only, int(sys.argv[2]), float(sys.argv[3]))
