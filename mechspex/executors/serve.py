"""``python -m mechspex.executors.serve``: a worker process at the other end of a socket.

``serve FD`` is given the socket, ``serve HOST PORT NAME`` connects to it with the key of `KEY`.
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Client, Connection
from queue import SimpleQueue
from threading import Thread

from mechspex.executors.measurer import Measurer

# The variable that holds what a worker of another machine proves itself by, in hexadecimal digits.
KEY = "MECHSPEX_WORKER_KEY"


def serve(connection: Connection) -> None:
    """Answer the requests of a coordinator until it is gone; the process ends with it.

    Args:
        connection: nothing but bytes go through it, and nothing is unpickled.
    """
    # Ctrl-C in a terminal reaches workers as well; the coordinator ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_receive, args=(connection, requests), daemon=True).start()
    measurer = Measurer()
    while True:
        connection.send_bytes(measurer.answer(requests.get()))


def _receive(connection: Connection, requests: SimpleQueue[bytes]) -> None:
    try:
        while True:
            requests.put(connection.recv_bytes())
    except (EOFError, OSError):
        # In the middle of a forward as well: no worker outlives whom it works for.
        os._exit(0)


def _connected(host: str, port: str, name: str) -> Connection:
    connection = Client((host, int(port)), authkey=bytes.fromhex(os.environ.pop(KEY)))
    connection.send_bytes(name.encode())
    return connection


if __name__ == "__main__":
    first, *others = sys.argv[1:]
    serve(_connected(first, *others) if others else Connection(int(first)))
