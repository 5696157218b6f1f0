"""Misleading pages: pages without rows, and pages whose next link leads to themselves or to another host.

A page without rows links to an alias of the page that it replaces. The number of the fault makes each alias unique, and
the server resolves an alias to the original page. Each dialect links its pages in its own style.
"""

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from sandbox.encoding import dump

OTHER_HOST = "http://127.0.0.1:1"  # where no server listens
_ALIAS = re.compile(r"again-\d+-(.*)", re.DOTALL)
_MARKER_SPAN = 10**13  # exceeds every marker, so that multiples of it can be added to make aliases


def resolve_alias(request: Request) -> Request | None:
    """Return the request for the original page, or None if the request does not use an alias."""
    if b"again-" not in request.scope["query_string"] and b"marker=" not in request.scope["query_string"]:
        return None
    parameters = request.query_params.multi_items()
    resolved = [(name, _resolve(name, value)) for name, value in parameters]
    return None if resolved == parameters else with_parameters(request, [pair for pair in resolved if pair[1]])


def _resolve(name: str, value: str) -> str:
    if name == "marker":
        return str(int(value) % _MARKER_SPAN) if value.isdecimal() and int(value) >= _MARKER_SPAN else value
    alias = _ALIAS.fullmatch(value) if name in ("page[cursor]", "since") else None
    return alias[1] if alias else value


def with_parameters(request: Request, parameters: list[tuple[str, str]], **path: str) -> Request:
    """Return the request with other query parameters and other values in its path."""
    changes = {"query_string": urlencode(parameters).encode(), "path_params": request.path_params | path}
    return Request({**request.scope, **changes}, request.receive)


def empty_page(request: Request, body: bytes, number: int) -> bytes | None:
    """Return a page without rows that links to an alias of this page, or None if the endpoint has no such links."""
    style = _style(request)
    return None if style is None else style.empty_page(request, body, number)


def repeated_page(request: Request, body: bytes) -> bytes | None:
    """Return the page with a link to itself as the next page, or None if the endpoint has no such links."""
    style = _style(request)
    return None if style is None else style.repeated_page(request, body)


def foreign_page(request: Request, body: bytes) -> bytes | None:
    """Return the page with a next link to another host, or None if the dialect does not use whole URLs."""
    if _style(request) != _LINKS:
        return None
    return _with_next(body, f"{OTHER_HOST}{request.url.path}?{request.url.query}")


def _with_next(body: bytes, link: str | None) -> bytes | None:
    """Return the document with another next link, by default to itself, or None if it is not a page."""
    head, mark, tail = body.rpartition(b'"links":')
    links = json.loads(tail[:-1]) if mark else {}
    if "next" not in links:
        return None
    return b"%b%b%b}" % (head, mark, dump({**links, "next": link or links["self"]}))


@dataclass(frozen=True)
class _Links:
    """The style of the current dialect: the next page is a URL."""

    def empty_page(self, request: Request, body: bytes, number: int) -> bytes | None:
        cursor = request.query_params.get("page[cursor]", "")
        url = request.url.include_query_params(**{"page[cursor]": f"again-{number}-{cursor}"})
        page: dict[str, Any] = {"data": []} | ({"included": []} if "include" in request.query_params else {})
        document = dump(page | {"links": {"self": str(request.url), "next": str(url), "prev": None}})
        return document if _with_next(body, None) else None

    def repeated_page(self, request: Request, body: bytes) -> bytes | None:
        return _with_next(body, None)


@dataclass(frozen=True)
class _Tokens:
    """The style of the timelines of v1: the next page is a token to send as `since`."""

    def empty_page(self, request: Request, body: bytes, number: int) -> bytes | None:
        following = f"again-{number}-{request.query_params.get('since', '')}"
        return dump({"object": "$list", "count": 0, "data": [], "next": following})

    def repeated_page(self, request: Request, body: bytes) -> bytes | None:
        head, mark, _ = body.rpartition(b'"next":')
        since = request.query_params.get("since")
        return b"%b%b%b}" % (head, mark, dump(since)) if since else None


@dataclass(frozen=True)
class _Markers:
    """The style of the records of v2: the next page is a number to send as `marker`."""

    def empty_page(self, request: Request, body: bytes, number: int) -> bytes | None:
        return dump({"records": [], "marker": _marker(request) + _MARKER_SPAN * (number + 1)})

    def repeated_page(self, request: Request, body: bytes) -> bytes | None:
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
    """Return the style of the endpoint's links, or None if there are none, as on the numbered pages of v1."""
    if request.method != "GET":
        return None
    return next((style for path, style in _STYLES.items() if re.fullmatch(path, request.url.path)), None)
