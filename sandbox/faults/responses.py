"""Responses that stop early, stall, or differ from what their headers promise. Must know HTTP only, no API."""

import asyncio
import socket
import struct
import zlib
from collections.abc import AsyncIterator
from functools import cache

from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_TRANSPORT = "sandbox.transport"
_NO_STATUS = 0
_SLOW_PIECES = 20  # of the body
_GZIP_START = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_BOMB_BLOCK = 1 << 24  # bytes, about 16 thousand when compressed
_BOMB_BLOCKS = 256


def with_connection(app: ASGIApp) -> ASGIApp:
    """Return the application with uvicorn's connection added to the scope of each request."""

    async def connected(scope: Scope, receive: Receive, send: Send) -> None:
        scope[_TRANSPORT] = getattr(getattr(send, "__self__", None), "transport", None)
        await app(scope, receive, send)

    return connected


async def _until_closed(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Reset(Response):
    """A connection reset instead of a response."""

    def __init__(self) -> None:
        super().__init__(status_code=_NO_STATUS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope[_TRANSPORT]
        no_linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        transport.abort()
        await _until_closed(receive)


class Truncated(Response):
    """A response whose connection closes after half of the body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True})
        transport: asyncio.Transport | None = scope.get(_TRANSPORT)
        if transport is not None:
            transport.close()
            await _until_closed(receive)


class Slow(Response):
    """A response that sends its body in small pieces over several seconds."""

    seconds = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        size = max(1, -(-len(self.body) // _SLOW_PIECES))
        for at in range(0, len(self.body), size):
            await asyncio.sleep(self.seconds / _SLOW_PIECES)
            await send({"type": "http.response.body", "body": self.body[at : at + size], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def undecodable(media_type: str | None) -> Response:
    """Return a response that starts as gzip and continues with garbage."""
    headers = {"Content-Encoding": "gzip"}
    return Response(_GZIP_START + b"\xff" * 1000, headers=headers, media_type=media_type)


def bomb(media_type: str | None) -> Response:
    """Return a response of 4 MB that decompresses to 4 GB of blanks."""
    return StreamingResponse(_bomb_blocks(), headers={"Content-Encoding": "gzip"}, media_type=media_type)


async def _bomb_blocks() -> AsyncIterator[bytes]:
    yield _GZIP_START
    for _ in range(_BOMB_BLOCKS):
        yield _bomb_block()


@cache
def _bomb_block() -> bytes:
    """Return compressed blanks that can be repeated within one stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(b" " * _BOMB_BLOCK) + packer.flush(zlib.Z_FULL_FLUSH)
