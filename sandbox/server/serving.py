"""The socket and the uvicorn server that an application is served with."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from sandbox.faults.responses import with_connection

HOST = "127.0.0.1"
_KEEP_ALIVE = 75  # seconds, so that connections stay open while a client waits for its database


class _Server(uvicorn.Server):
    """A server without signal handlers. The sandbox exits at once, as it has nothing to finish."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(port: int) -> socket.socket:
    """Return a listening socket. 0 selects any free port. Raise OSError if the port cannot be used."""
    listener = socket.socket()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # otherwise each answer waits 40 ms for an ACK
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    listener.listen(128)
    return listener


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve an application until the process exits."""
    config = uvicorn.Config(
        with_connection(app),
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE,
    )
    _Server(config).run(sockets=[listener])
