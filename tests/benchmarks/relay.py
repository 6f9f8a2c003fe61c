"""Copies bytes between a CLI's pipes and one TCP client, as they are: the least that may stand between them.

`python relay.py INPUT OUTPUT`: the numbers of the pipes, which it has inherited. What the CLI says goes out
as it comes. It prints the port where it listens, and ends with its client.
"""

import os
import socket
import sys
import threading

SIZE = 256 * 1024


def give(client: socket.socket, into: int) -> None:
    """Give the CLI what the client says, until one of the two ends."""
    while data := client.recv(SIZE):
        os.write(into, data)
    os._exit(0)


def take(client: socket.socket, out: int) -> None:
    """Give the client what the CLI says: one call to the kernel each time, and no byte comes up here."""
    number = client.fileno()
    while os.splice(out, number, SIZE):
        pass


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        with listening.accept()[0] as only:
            only.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=give, args=(only, int(sys.argv[1])), daemon=True).start()
            take(only, int(sys.argv[2]))
