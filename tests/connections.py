"""Connections that are lost, on one end or on both."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg


def end_session(url: str, connection: psycopg.Connection) -> None:
    """End the server's session of a connection, which does not know that yet."""
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 60000)", [connection.info.backend_pid])


@contextmanager
def half_open(connection: psycopg.Connection) -> Iterator[None]:
    """Break the client's end of a connection, as a firewall does. The server's end stays open for the block."""
    server, (end, gone) = os.dup(connection.fileno()), socket.socketpair()
    gone.close()
    with end:
        os.dup2(end.fileno(), connection.fileno())
    try:
        yield
    finally:
        os.close(server)
