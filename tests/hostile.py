"""Answers that no API should give, and a server of raw bytes that gives them."""

import gzip
import socket
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from threading import Event, Thread
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Self

Piece = bytes | float | None
"""Bytes to send, seconds to wait, or None: reset the connection."""
Pieces = Callable[[], Iterator[Piece]]

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_PAGE = b'{"data":[],"links":{"next":null}}'
_MEGABYTE = 1 << 20
_LIST = b'{"data":['
_EVENT = b'{"id":"%d","attributes":{"timestamp":5,"event_properties":%b}}'


class Hostile(NamedTuple):
    """An answer: its pieces. With `reads_request`, the request is read first; with `is_tls`, the client expects TLS."""

    pieces: Pieces
    reads_request: bool = True
    is_tls: bool = False


class HostileServer:
    """A server that gives one answer to every request, until it is left."""

    def __init__(self, hostile: Hostile) -> None:
        self._hostile, self._is_over = hostile, Event()
        self.was_asked = Event()
        self._threads: list[Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if hostile.is_tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[[], None]) -> None:
        self._threads.append(Thread(target=work))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._start(lambda connection=connection: self._serve(connection))  # type: ignore[misc]

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(0.2)  # so that a client that reads no more does not keep the server
            self.was_asked.set()
            if self._hostile.reads_request:
                _read_request(connection)
            for piece in self._hostile.pieces():
                if self._is_over.is_set():
                    return
                self._give(connection, piece)

    def _give(self, connection: socket.socket, piece: Piece) -> None:
        if isinstance(piece, float):
            self._is_over.wait(piece)
        elif piece is None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        else:
            left = memoryview(piece)
            while left and not self._is_over.is_set():
                with suppress(TimeoutError):
                    left = left[connection.send(left) :]


def _read_request(connection: socket.socket) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        with suppress(TimeoutError):
            piece = connection.recv(65536)
            if not piece:
                raise ConnectionError
            received += piece


def megabytes(count: int, text: bytes, first: bytes = b"") -> Pieces:
    """Return a complete answer with a text, repeated until it fills some megabytes. It is made when it is sent."""
    return lambda: iter([whole(first + text * (count * _MEGABYTE // len(text)))])


def bytes_of(*pieces: Piece) -> Pieces:
    """Return an answer of these pieces."""
    return lambda: iter(pieces)


def endless(piece: bytes, first: bytes = b"", pause: float = 0.0) -> Pieces:
    """Return an answer that repeats a piece for ever, with a pause after each."""

    def pieces() -> Iterator[Piece]:
        yield first
        while True:
            yield piece
            if pause:
                yield pause

    return pieces


def drip(text: bytes, first: bytes = b"", pause: float = 1.0) -> Pieces:
    """Return an answer that sends a text byte by byte."""

    def pieces() -> Iterator[Piece]:
        yield first
        for byte in text:
            yield bytes([byte])
            yield pause

    return pieces


def whole(body: bytes = _PAGE, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a complete answer."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), lines, body)


def _endless_gzip(levels: int = 1) -> Pieces:
    """Return an answer of zeros without end, compressed. The client decompresses a thousand times what it receives."""

    def pieces() -> Iterator[Piece]:
        first = again = bytes(4 * _MEGABYTE)
        for _ in range(levels):
            packer = zlib.compressobj(9, zlib.DEFLATED, 31)
            first = packer.compress(first) + packer.flush(zlib.Z_FULL_FLUSH)
            again = packer.compress(again) + packer.flush(zlib.Z_FULL_FLUSH)  # can be repeated: it refers to nothing
        yield _HEAD + b"Content-Encoding: " + b", ".join([b"gzip"] * levels) + b"\r\n\r\n" + first
        while True:
            yield again

    return pieces


def _chunked(*rest: bytes) -> bytes:
    return _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(rest)


def _refusal(status: bytes, detail: bytes, *headers: bytes) -> Pieces:
    return bytes_of(whole(b'{"errors":[{"detail":"' + detail + b'"}]}', *headers, status=status))


def _page_of(properties: bytes) -> Pieces:
    return bytes_of(whole(b'{"data":[' + _EVENT % (1, properties) + b'],"links":{"next":null}}'))


_CONTROLS = rb"\u001b[2J\u001b[31mERROR\u0007\r\n2026-01-01 | all is well\u202egnihton\u0000\ud800"

ANSWERS: Mapping[str, Hostile] = MappingProxyType(
    {
        # connections
        "closes at once": Hostile(bytes_of(), reads_request=False),
        "resets at once": Hostile(bytes_of(None), reads_request=False),
        "closes after the request": Hostile(bytes_of()),
        "resets after the request": Hostile(bytes_of(None)),
        "says nothing": Hostile(bytes_of(3600.0)),
        "does not read the request and says nothing": Hostile(bytes_of(3600.0), reads_request=False),
        "TLS: says nothing": Hostile(bytes_of(3600.0), reads_request=False, is_tls=True),
        "TLS: drips a handshake": Hostile(drip(b"\x16\x03\x03\x40\x00" * 99), reads_request=False, is_tls=True),
        "TLS: an endless handshake": Hostile(
            endless(b"\x16\x03\x03\x00\x04\x00\x00\x00\x00"), reads_request=False, is_tls=True
        ),
        "TLS: answers in plain HTTP": Hostile(bytes_of(whole()), reads_request=False, is_tls=True),
        "TLS: closes at once": Hostile(bytes_of(), reads_request=False, is_tls=True),
        # status line
        "drips the status line": Hostile(drip(b"HTTP/1.1 200 OK\r\n" * 99)),
        "an endless status line": Hostile(endless(b"H" * 65536)),
        "an endless reason": Hostile(endless(b"x" * 65536, b"HTTP/1.1 200 ")),
        "no status line": Hostile(bytes_of(_PAGE)),
        "a status line without a status": Hostile(bytes_of(b"HTTP/1.1\r\n\r\n")),
        "status 999": Hostile(bytes_of(whole(status=b"999 Odd"))),
        "status -1": Hostile(bytes_of(whole(status=b"-1 Odd"))),
        "status 2000": Hostile(bytes_of(whole(status=b"2000 Odd"))),
        "HTTP/0.9": Hostile(bytes_of(b"<html>hello</html>")),
        "HTTP/9.9": Hostile(bytes_of(b"HTTP/9.9 200 OK\r\n\r\n")),
        "a preface of HTTP/2": Hostile(bytes_of(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        "random bytes": Hostile(bytes_of(bytes(range(256)) * 64)),
        # 1xx
        "100 Continue without end": Hostile(endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)),
        "100 Continue every second": Hostile(endless(b"HTTP/1.1 100 Continue\r\n\r\n", pause=1.0)),
        "100 Continue with headers without end": Hostile(
            endless(b"a: b\r\n" * 100, b"HTTP/1.1 100 Continue\r\n", pause=0.01)
        ),
        "102 Processing every second": Hostile(endless(b"HTTP/1.1 102 Processing\r\n\r\n", pause=1.0)),
        "103 Early Hints": Hostile(bytes_of(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", whole())),
        "101 Switching Protocols": Hostile(bytes_of(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 3600.0)),
        # headers
        "drips the headers": Hostile(drip(b"a: b\r\n" * 99, b"HTTP/1.1 200 OK\r\n")),
        "drips one header without end": Hostile(endless(b"a", b"HTTP/1.1 200 OK\r\na: ", pause=0.5)),
        "headers without end": Hostile(endless(b"a: b\r\n" * 1000, b"HTTP/1.1 200 OK\r\n")),
        "one header of any length": Hostile(endless(b"a" * 65536, b"HTTP/1.1 200 OK\r\na: ")),
        "100 headers of 60 kB": Hostile(bytes_of(_HEAD, (b"a: " + b"b" * 60_000 + b"\r\n") * 98, b"\r\n" + _PAGE)),
        "headers without colons": Hostile(bytes_of(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n" + _PAGE)),
        "a header with NUL and escapes": Hostile(bytes_of(whole(_PAGE, b"X: \x00\x1b[2J"))),
        "two lengths": Hostile(bytes_of(whole(_PAGE, b"Content-Length: 5"))),
        "a negative length": Hostile(bytes_of(_HEAD + b"Content-Length: -5\r\n\r\n" + _PAGE)),
        "a length that is no number": Hostile(bytes_of(_HEAD + b"Content-Length: five\r\n\r\n" + _PAGE)),
        "a length of 10^30": Hostile(bytes_of(_HEAD + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n" + _PAGE)),
        "a length and chunks": Hostile(bytes_of(whole(b"0\r\n\r\n", b"Transfer-Encoding: chunked"))),
        "an unknown transfer encoding": Hostile(bytes_of(whole(_PAGE, b"Transfer-Encoding: odd"))),
        # chunks
        "drips chunks": Hostile(drip(b"1\r\n \r\n" * 99, _chunked())),
        "chunks of one byte without end": Hostile(endless(b"1\r\n \r\n" * 1000, _chunked())),
        "chunks of two bytes without end": Hostile(endless(b"2\r\n[]\r\n" * 10_000, _chunked())),
        "an endless size of a chunk": Hostile(endless(b"0" * 65536, _chunked())),
        "an endless extension of a chunk": Hostile(endless(b"x" * 65536, _chunked(b"1;"))),
        "a chunk of 10^18 bytes": Hostile(endless(b" " * 65536, _chunked(b"de0b6b3a7640000\r\n"))),
        "a chunk of -1 bytes": Hostile(bytes_of(_chunked(b"-1\r\n"), 3600.0)),
        "a size that is no number": Hostile(bytes_of(_chunked(b"odd\r\n"))),
        "trailers without end": Hostile(endless(b"a: b\r\n" * 1000, _chunked(b"2\r\n{}\r\n0\r\n"))),
        "drips trailers": Hostile(endless(b"a: b\r\n", _chunked(b"2\r\n{}\r\n0\r\n"), pause=1.0)),
        # compression
        "zeros without end, compressed": Hostile(_endless_gzip()),
        "zeros without end, compressed twice": Hostile(_endless_gzip(2)),
        "compressed nine times": Hostile(_endless_gzip(9)),
        "empty members of gzip without end": Hostile(
            endless(gzip.compress(b"") * 1000, _HEAD + b"Content-Encoding: gzip\r\n\r\n")
        ),
        "not compressed as declared": Hostile(bytes_of(whole(_PAGE, b"Content-Encoding: gzip"))),
        "cut off within gzip": Hostile(bytes_of(whole(gzip.compress(_PAGE * 999)[:99], b"Content-Encoding: gzip"))),
        "an unknown encoding": Hostile(bytes_of(whole(_PAGE, b"Content-Encoding: odd"))),
        # bodies
        "drips the body": Hostile(drip(b" " * 999, _HEAD + b"\r\n")),
        "drips the body every 0.1 s": Hostile(endless(b" ", _HEAD + b"\r\n", pause=0.1)),
        "half of the body, then nothing": Hostile(bytes_of(_HEAD + b'Content-Length: 99\r\n\r\n{"data":', 3600.0)),
        "half of the body, then a reset": Hostile(bytes_of(_HEAD + b'Content-Length: 99\r\n\r\n{"data":', 0.1, None)),
        "half of the body, then the end": Hostile(bytes_of(_HEAD + b'Content-Length: 99\r\n\r\n{"data":')),
        "blanks without end": Hostile(endless(b" " * 65536, _HEAD + b"\r\n")),
        "an empty body": Hostile(bytes_of(whole(b""))),
        "HTML": Hostile(bytes_of(whole(b"<html><body>Sign in</body></html>"))),
        "null": Hostile(bytes_of(whole(b"null"))),
        "a page without data": Hostile(bytes_of(whole(b"{}"))),
        "UTF-16": Hostile(bytes_of(whole(_PAGE.decode().encode("utf-16")))),
        "60 MB of blanks": Hostile(megabytes(60, b" ")),
        "60 MB of [": Hostile(megabytes(60, b"[")),
        "60 MB of nested lists as data": Hostile(megabytes(60, b"[", _LIST)),
        "7 MB of nested lists as data": Hostile(megabytes(7, b"[", _LIST)),
        "7 MB of nested objects as data": Hostile(megabytes(7, b'{"":', _LIST)),
        "7 MB of empty records": Hostile(megabytes(7, b"{},", _LIST)),
        "60 MB of backslashes": Hostile(megabytes(60, b"\\", _LIST + b'"')),
        "60 MB of digits": Hostile(megabytes(60, b"9", _LIST)),
        "an event nested 100,000 levels deep": Hostile(_page_of(b"[" * 100_000 + b"]" * 100_000)),
        "an event with lone surrogates": Hostile(_page_of(rb'{"a":"\ud800","b":["\udfff\ud83d"]}')),
        "an event with NUL": Hostile(_page_of(rb'{"a\u0000":"\u0000"}')),
        "an event with a number of 10^999999": Hostile(_page_of(b'{"a":1e999999}')),
        # links
        "a link to another host": Hostile(
            bytes_of(whole(b'{"data":[],"links":{"next":"http://example.com/\\u001b[2J"}}'))
        ),
        "a link to itself": Hostile(bytes_of(whole(b'{"data":[],"links":{"next":"/api/events?page=1"}}'))),
        "a link of 20 MB": Hostile(
            bytes_of(whole(b'{"data":[],"links":{"next":"/' + b"x" * (20 * _MEGABYTE) + b'"}}'))
        ),
        "a link to a file": Hostile(bytes_of(whole(b'{"data":[],"links":{"next":"file:///etc/passwd"}}'))),
        # statuses
        "a redirect to itself": Hostile(bytes_of(whole(b"", b"Location: /api/events", status=b"302 Found"))),
        "304 Not Modified": Hostile(bytes_of(whole(b"", status=b"304 Not Modified"))),
        "204 No Content": Hostile(bytes_of(b"HTTP/1.1 204 No Content\r\n\r\n")),
        "400 with a detail of 5 MB": Hostile(_refusal(b"400 Bad Request", b"x" * (5 * _MEGABYTE))),
        "400 with escape sequences": Hostile(_refusal(b"400 Bad Request", _CONTROLS)),
        "400 with 10,000 errors": Hostile(
            bytes_of(whole(b'{"errors":[' + b",".join([b'{"detail":"no"}'] * 10_000) + b"]}", status=b"400 No"))
        ),
        "400 with a body without end": Hostile(endless(b"x" * 65536, b"HTTP/1.1 400 No\r\n\r\n")),
        "400 that drips": Hostile(drip(b" " * 999, b"HTTP/1.1 400 No\r\n\r\n")),
        "404 with zeros without end, compressed": Hostile(
            bytes_of(whole(gzip.compress(bytes(50 * _MEGABYTE)), b"Content-Encoding: gzip", status=b"404 No"))
        ),
        "429 without Retry-After": Hostile(_refusal(b"429 Too Many", b"slow")),
        "429 with Retry-After: 999999999": Hostile(_refusal(b"429 Too Many", b"slow", b"Retry-After: 999999999")),
        "429 with Retry-After: 1, always": Hostile(_refusal(b"429 Too Many", b"slow", b"Retry-After: 1")),
        "429 with a Retry-After of 400 digits": Hostile(
            _refusal(b"429 Too Many", b"slow", b"Retry-After: " + b"9" * 400)
        ),
        "503 with Retry-After: 999999999": Hostile(_refusal(b"503 Away", b"away", b"Retry-After: 999999999")),
        "503 with Retry-After: 1, always": Hostile(_refusal(b"503 Away", b"away", b"Retry-After: 1")),
        "503 with Retry-After: 0, always": Hostile(_refusal(b"503 Away", b"away", b"Retry-After: 0")),
        "503 with a negative Retry-After": Hostile(_refusal(b"503 Away", b"away", b"Retry-After: -5")),
        "500 that drips": Hostile(drip(b" " * 999, b"HTTP/1.1 500 No\r\n\r\n")),
    }
)
