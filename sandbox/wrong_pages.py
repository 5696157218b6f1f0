"""Pages that mislead: without rows, leading to themselves or to another host. Knows how each dialect says what follows.

A page without rows leads to another name of the page that should have come, made from the number of the fault; the
server takes such a name for the place itself.
"""

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from sandbox.content import dump

NOWHERE = "http://127.0.0.1:1"  # another host, where nobody listens
_ALIAS = re.compile(r"again-\d+-(.*)", re.DOTALL)
_MARKERS = 10**13  # is more than any marker; the part above it only makes a difference of names


def original(request: Request) -> Request | None:
    """The request behind one that uses another name of a place; None for any other request."""
    if b"again-" not in request.scope["query_string"] and b"marker=" not in request.scope["query_string"]:
        return None
    given = request.query_params.multi_items()
    meant = [(name, _place(name, value)) for name, value in given]
    return None if meant == given else asked_instead(request, [pair for pair in meant if pair[1]])


def _place(name: str, value: str) -> str:
    if name == "marker":
        return str(int(value) % _MARKERS) if value.isdecimal() and int(value) >= _MARKERS else value
    alias = _ALIAS.fullmatch(value) if name in ("page[cursor]", "since") else None
    return alias[1] if alias else value


def asked_instead(request: Request, parameters: list[tuple[str, str]], **path: str) -> Request:
    """The same request with other parameters in its query, and others in its path."""
    given = {"query_string": urlencode(parameters).encode(), "path_params": request.path_params | path}
    return Request({**request.scope, **given}, request.receive)


def empty(request: Request, body: bytes, number: int) -> bytes | None:
    """A page without rows in place of this one, to which it leads; None where the dialect has no way to say so."""
    style = _style(request)
    return None if style is None else style.empty(request, body, number)


def repeated(request: Request, body: bytes) -> bytes | None:
    """The page, leading to itself; None where the dialect has no way to say so."""
    style = _style(request)
    return None if style is None else style.repeated(request, body)


def foreign(request: Request, body: bytes) -> bytes | None:
    """The page, leading to another host; None where a dialect tells no addresses."""
    return _with_next(body, f"{NOWHERE}{request.url.path}?{request.url.query}") if _style(request) == _LINKS else None


def _with_next(body: bytes, link: str | None) -> bytes | None:
    """The same document with another link to what follows, by default to itself; None if it is no page."""
    head, mark, tail = body.rpartition(b'"links":')
    links = json.loads(tail[:-1]) if mark else {}
    if "next" not in links:
        return None
    return b"%b%b%b}" % (head, mark, dump({**links, "next": link or links["self"]}))


@dataclass(frozen=True)
class _Links:
    """The current dialect: whole addresses."""

    def empty(self, request: Request, body: bytes, number: int) -> bytes | None:
        place = request.query_params.get("page[cursor]", "")
        url = request.url.include_query_params(**{"page[cursor]": f"again-{number}-{place}"})
        page: dict[str, Any] = {"data": []} | ({"included": []} if "include" in request.query_params else {})
        document = dump(page | {"links": {"self": str(request.url), "next": str(url), "prev": None}})
        return document if _with_next(body, None) else None

    def repeated(self, request: Request, body: bytes) -> bytes | None:
        return _with_next(body, None)


@dataclass(frozen=True)
class _Tokens:
    """The timelines of v1: what to send as `since`."""

    def empty(self, request: Request, body: bytes, number: int) -> bytes | None:
        following = f"again-{number}-{request.query_params.get('since', '')}"
        return dump({"object": "$list", "count": 0, "data": [], "next": following})

    def repeated(self, request: Request, body: bytes) -> bytes | None:
        head, mark, _ = body.rpartition(b'"next":')
        since = request.query_params.get("since")
        return b"%b%b%b}" % (head, mark, dump(since)) if since else None


@dataclass(frozen=True)
class _Markers:
    """The records of v2: a number to send as `marker`."""

    def empty(self, request: Request, body: bytes, number: int) -> bytes | None:
        return dump({"records": [], "marker": _marker(request) + _MARKERS * (number + 1)})

    def repeated(self, request: Request, body: bytes) -> bytes | None:
        return dump({**json.loads(body), "marker": _marker(request)})


def _marker(request: Request) -> int:
    return int(request.query_params.get("marker") or 0)


_LINKS = _Links()
_STYLES: dict[str, _Links | _Tokens | _Markers] = {
    r"/api/v1/.*timeline/?": _Tokens(),
    r"/api/v2/.*/all/?": _Markers(),
    r"/api/(?!v\d/).*": _LINKS,
}


def _style(request: Request) -> _Links | _Tokens | _Markers | None:
    """How the answer says what follows; None if it does not, as v1 lists, whose pages are numbered."""
    if request.method != "GET":
        return None
    return next((style for path, style in _STYLES.items() if re.fullmatch(path, request.url.path)), None)
