"""Answers that break off, stall, or are not what their headers promise. Knows no API, only HTTP and the connection."""

import asyncio
import socket
import struct
import zlib
from collections.abc import AsyncIterator
from functools import cache

from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_TRANSPORT = "sandbox.transport"
_NO_ANSWER = 0  # in place of a status
_PIECES = 20  # of a dribbled body
_GZIP_START = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_BOMB_PART = 1 << 24  # bytes, which are some 16 thousand when compressed
_BOMB_PARTS = 256


def with_connection(app: ASGIApp) -> ASGIApp:
    """The application, knowing the connection that each request came by, as far as uvicorn lets it be known."""

    async def connected(scope: Scope, receive: Receive, send: Send) -> None:
        scope[_TRANSPORT] = getattr(getattr(send, "__self__", None), "transport", None)
        await app(scope, receive, send)

    return connected


async def _until_closed(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Reset(Response):
    """No answer: the connection is reset."""

    def __init__(self) -> None:
        super().__init__(status_code=_NO_ANSWER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope[_TRANSPORT]
        at_once = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        transport.abort()
        await _until_closed(receive)


class Truncated(Response):
    """Promises a whole body and sends half of it, as a connection does that is cut."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True})
        transport: asyncio.Transport | None = scope.get(_TRANSPORT)
        if transport is not None:
            transport.close()
            await _until_closed(receive)


class Slow(Response):
    """Sends its body in small pieces."""

    seconds = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        size = max(1, -(-len(self.body) // _PIECES))
        for at in range(0, len(self.body), size):
            await asyncio.sleep(self.seconds / _PIECES)
            await send({"type": "http.response.body", "body": self.body[at : at + size], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def undecodable(media_type: str | None) -> Response:
    """Says that it is compressed, and begins so."""
    headers = {"Content-Encoding": "gzip"}
    return Response(_GZIP_START + b"\xff" * 1000, headers=headers, media_type=media_type)


def bomb(media_type: str | None) -> Response:
    """4 MB that become 4 GB of blanks when they are decompressed."""
    return StreamingResponse(_bomb_parts(), headers={"Content-Encoding": "gzip"}, media_type=media_type)


async def _bomb_parts() -> AsyncIterator[bytes]:
    yield _GZIP_START
    for _ in range(_BOMB_PARTS):
        yield _bomb_part()


@cache
def _bomb_part() -> bytes:
    """Blanks, compressed such that the part can be repeated within one stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(b" " * _BOMB_PART) + packer.flush(zlib.Z_FULL_FLUSH)
