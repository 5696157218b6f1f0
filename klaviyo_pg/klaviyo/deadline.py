"""Connections whose every wait ends at a deadline, or earlier if a check says so. Knows no API.

The timeouts of sockets start again with each byte, so an answer that drips could take forever. Here each wait of a
request, from the look-up of the host to the last byte of the body, is cut into slices, and between them the deadline
and the check are looked at. No other thread is needed, except for the look-up of a host, which cannot be interrupted.
"""

import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from math import inf
from queue import Empty, SimpleQueue
from select import POLLOUT, poll
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.poolmanager import PoolManager
from urllib3.util.ssl_ import create_urllib3_context

SLICE = 0.25
"""Seconds of a wait between two looks at the deadline and the check."""
_CONNECT_TIMEOUT = 10.0  # seconds, for each address of a host

Result = TypeVar("Result")


class Deadline:
    """The time at which the request in progress has to be over, and the check that raises an error to end it earlier.

    One request at a time has a deadline, so clients must not share it.
    """

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self._check, self._at = check, inf

    def start(self, seconds: float) -> None:
        """Give a request some seconds from now on."""
        self._at = monotonic() + seconds

    def check(self) -> None:
        """Raise TimeoutError if the request has taken too long, or the error of the check."""
        self._check()
        if monotonic() >= self._at:
            raise TimeoutError("the request has taken too long")


if TYPE_CHECKING:
    _Mixed = socket.socket
else:
    _Mixed = object


class _Sliced(_Mixed):
    """The waits of a socket, in slices. Its timeout is the length of a slice."""

    deadline: Deadline

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        return self._sliced(super().recv_into, *args, **kwargs)

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        return self._sliced(super().recv, *args, **kwargs)

    def sendall(self, data: Any, flags: int = 0) -> None:
        left = memoryview(data).cast("B")
        while left:
            left = left[self._sliced(self.send, left, flags) :]

    def _sliced(self, wait: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        while True:
            self.deadline.check()
            with suppress(TimeoutError):
                return wait(*args, **kwargs)


class _Socket(_Sliced, socket.socket):
    """A connection."""


class _TlsSocket(_Sliced, ssl.SSLSocket):
    """A TLS connection. Its handshake waits in slices, too."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            self._sliced(super().do_handshake, block)
        except BaseException:  # ssl closes it only after an OSError
            self.close()
            raise


def _addresses(deadline: Deadline, host: str, port: int) -> list[Any]:
    """Look up a host in a separate thread, which outlives an interrupted wait until the resolver gives up."""
    answers: SimpleQueue[list[Any] | Exception] = SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM))
        except Exception as error:
            answers.put(error)

    Thread(target=look_up, name="look up a host", daemon=True).start()
    while True:
        deadline.check()
        with suppress(Empty):
            answer = answers.get(timeout=SLICE)
            break
    if isinstance(answer, Exception):
        raise answer
    return answer


def _connected(deadline: Deadline, address: Any, options: Any) -> _Socket:
    """Connect to one address of a host. Raises OSError."""
    family, kind, protocol, _, where = address
    connection = _Socket(family, kind, protocol)
    try:
        connection.deadline = deadline
        for option in options or ():
            connection.setsockopt(*option)
        connection.setblocking(False)
        with suppress(BlockingIOError):
            connection.connect(where)
        _await_connection(deadline, connection)
        connection.settimeout(SLICE)
    except BaseException:
        connection.close()
        raise
    return connection


def _await_connection(deadline: Deadline, connection: socket.socket) -> None:
    until, waiting = monotonic() + _CONNECT_TIMEOUT, poll()
    waiting.register(connection, POLLOUT)
    while not waiting.poll(SLICE * 1000):
        deadline.check()
        if monotonic() >= until:
            raise TimeoutError("no connection")
    if code := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(code, "no connection")


def _open(connection: HTTPConnection, deadline: Deadline, host: str) -> socket.socket:
    """Connect to the first address of a host that answers, with the errors of urllib3."""
    try:
        addresses = _addresses(deadline, host.strip("[]"), connection.port)
    except (socket.gaierror, UnicodeError) as error:
        reason = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
        raise NameResolutionError(connection.host, connection, reason) from error
    except TimeoutError as error:
        raise ConnectTimeoutError(connection, "The host was not found in time.") from error
    refused: OSError = OSError("the host has no address")
    for address in addresses:
        try:
            opened = _connected(deadline, address, connection.socket_options)
        except OSError as error:
            refused = error
        else:
            sys.audit("http.client.connect", connection, connection.host, connection.port)
            return opened
    if isinstance(refused, TimeoutError):
        raise ConnectTimeoutError(connection, "The host did not answer in time.") from refused
    raise NewConnectionError(connection, str(refused)) from refused


class BoundedAdapter(HTTPAdapter):
    """The connections of one client. All of them are bounded by its deadline, except those to a SOCKS proxy."""

    def __init__(self, deadline: Deadline) -> None:
        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return _open(self, deadline, self._dns_host)

        class Tls(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return _open(self, deadline, self._dns_host)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = Tls

        self._pools = {"http": PlainPool, "https": TlsPool}
        self._tls = create_urllib3_context()
        self._tls.sslsocket_class = type("Tls", (_TlsSocket,), {"deadline": deadline})
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._tls, **kwargs)
        self._bound(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> ProxyManager:
        manager: ProxyManager = super().proxy_manager_for(proxy, ssl_context=self._tls, **kwargs)
        if type(manager) is ProxyManager:  # the manager for SOCKS has other pools
            self._bound(manager)
        return manager

    def _bound(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = self._pools
