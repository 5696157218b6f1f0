"""Connection poolers between a client and a real Postgres: a small one for tests, and PgBouncer where it is installed.

Both are made to share as much as they can: one server session for all clients where the mode allows that.
"""

import os
import pwd
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import LifoQueue

from psycopg.conninfo import conninfo_to_dict

from tests.driver import wait_until

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
_PARAMETERS = {"client_encoding": "UTF8", "server_version": "16.0", "integer_datetimes": "on", "TimeZone": "UTC"}
_ASKS_FOR_ENCRYPTION = {80877103, 80877104}  # SSLRequest and GSSENCRequest
_ENDS_A_REQUEST = b"QS"  # Query and Sync, which a server answers up to ReadyForQuery


class _Peer:
    """One end of a connection in Postgres' protocol."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._stream = connected.makefile("rb")

    def startup(self) -> bytes:
        """Read the body of a message without a type."""
        return self._exactly(struct.unpack("!i", self._exactly(4))[0] - 4)

    def message(self) -> tuple[bytes, bytes]:
        """Read a message: its type and its body."""
        kind = self._exactly(1)
        return kind, self.startup()

    def send(self, kind: bytes, body: bytes) -> None:
        self.socket.sendall(kind + struct.pack("!i", len(body) + 4) + body)

    def _exactly(self, length: int) -> bytes:
        read = self._stream.read(length)
        if len(read) < length:
            raise EOFError
        return read


class _Pooler:
    """Lends server sessions to clients: for a transaction or, with `by_session`, for as long as a client stays."""

    def __init__(self, conninfo: str, by_session: bool, sessions: int) -> None:
        self._parameters, self._by_session = conninfo_to_dict(conninfo), by_session
        self._free = LifoQueue[_Peer]()
        for _ in range(sessions):
            self._free.put(self._server())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _server(self) -> _Peer:
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(f"{self._parameters['host']}/.s.PGSQL.{self._parameters.get('port', 5432)}")
        server = _Peer(connected)
        names = b"".join(
            f"{name}\0{self._parameters[key]}\0".encode() for name, key in (("user", "user"), ("database", "dbname"))
        )
        server.send(b"", struct.pack("!i", 196608) + names + b"\0")
        while server.message()[0] != b"Z":
            pass
        return server

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connected, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[_Peer(connected)], daemon=True).start()

    def _serve(self, client: _Peer) -> None:
        with suppress(EOFError, OSError), client.socket:
            while struct.unpack("!i", client.startup()[:4])[0] in _ASKS_FOR_ENCRYPTION:
                client.socket.sendall(b"N")
            client.send(b"R", struct.pack("!i", 0))
            for name, value in _PARAMETERS.items():
                client.send(b"S", f"{name}\0{value}\0".encode())
            client.send(b"Z", b"I")
            self._forward(client)

    def _forward(self, client: _Peer) -> None:
        server: _Peer | None = None
        try:
            while (received := client.message())[0] != b"X":
                server = server or self._free.get()
                server.send(*received)
                if received[0] in _ENDS_A_REQUEST and self._answer(client, server) == b"I" and not self._by_session:
                    self._free.put(server)
                    server = None
        finally:
            if server:
                self._free.put(server)

    def _answer(self, client: _Peer, server: _Peer) -> bytes:
        """Forward an answer, and return the state of the transaction after it."""
        while True:
            kind, body = server.message()
            client.send(kind, body)
            if kind == b"Z":
                return body


@contextmanager
def small_pooler(conninfo: str, mode: str, folder: Path) -> Iterator[str]:
    """Run a small pooler, and yield a URL that leads through it. It forwards no COPY."""
    parameters, by_session = conninfo_to_dict(conninfo), mode == "session"
    pooler = _Pooler(conninfo, by_session, sessions=4 if by_session else 1)
    try:
        yield f"postgresql://{parameters['user']}@127.0.0.1:{pooler.port}/{parameters['dbname']}"
    finally:
        pooler.close()


@contextmanager
def pgbouncer(conninfo: str, mode: str, folder: Path) -> Iterator[str]:
    """Run PgBouncer, and yield a URL that leads through it."""
    assert PGBOUNCER is not None
    parameters = conninfo_to_dict(conninfo)
    host, user = str(parameters["host"]), parameters["user"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size = 20 if mode == "session" else 2
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\n* = host={host} user={user}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = {size}\n"
    )
    for each in (folder, configuration):
        each.chmod(0o755)
    owner = pwd.getpwuid(Path(host).stat().st_uid).pw_name
    as_owner = ["-u", owner] if os.getuid() == 0 else []
    with subprocess.Popen(
        [PGBOUNCER, *as_owner, configuration], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: _listens(port), "PgBouncer listened", process)
        try:
            yield f"postgresql://{user}@127.0.0.1:{port}/{parameters['dbname']}"
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
