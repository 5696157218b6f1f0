"""Every kind of fault by name, and the response that a request gets when it meets one."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from sandbox.api.errors import ApiError, throttled
from sandbox.encoding import dump
from sandbox.faults import pages, responses

_TITLES = {524: "A Timeout Occurred"}
_PAGE = "<!DOCTYPE html>\n<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>\n"
_METRIC_FILTER = re.compile(r'(equals\(metric_id,")([^"]*)("\))')
_METRIC_PATH = re.compile(r"/api/v1/metric/([^/]*)/timeline/?")


@dataclass
class Fault:
    """The fault that the next `times` requests to an endpoint meet, after `after` good responses.

    If `query` is set, only requests whose query contains it meet the fault. `kind` is a name in KINDS. Without one, the
    requests get `status` in the words of the dialect. `cut` is an older name of the kind "truncated". `seconds` is the
    duration of a timeout or of a slow response.
    """

    endpoint: str
    status: int = 503
    times: int = 1
    retry_after: int | None = None
    after: int = 0
    cut: bool = False
    kind: str = ""
    seconds: float = 5.0
    query: str = ""

    def __post_init__(self) -> None:
        self.kind = self.kind or ("truncated" if self.cut else "")
        if self.kind:
            check_kinds([self.kind])


@dataclass
class FaultyRequest:
    """A request and its fault, with the means to respond without the fault and to refuse in the dialect's words.

    `number` counts the faults of the server. `other_metric` returns the id of a metric other than the argument.
    """

    request: Request
    fault: Fault
    number: int
    answer: Callable[[Request], Awaitable[Response]]
    refuse: Callable[[ApiError], Response]
    other_metric: Callable[[str], str | None]
    _normal: Response | None = None

    async def normal_response(self) -> Response:
        """Return the response without the fault."""
        if self._normal is None:
            self._normal = await self.answer(self.request)
        return self._normal

    async def respond(self) -> Response:
        """Return the response with the fault. It is the normal response if the fault does not apply."""
        return await (KINDS[self.fault.kind] if self.fault.kind else _status)(self)

    def is_normal(self, response: Response) -> bool:
        """Return whether this is the normal response because the fault did not apply."""
        return response is self._normal


Kind = Callable[[FaultyRequest], Awaitable[Response]]


async def _status(faulty: FaultyRequest) -> Response:
    fault = faulty.fault
    if fault.status == 429:
        return faulty.refuse(throttled(fault.retry_after or 1))
    error = ApiError(fault.status, "error", "A test requested this error.")
    error.retry_after = fault.retry_after
    return faulty.refuse(error)


async def _reset(faulty: FaultyRequest) -> Response:
    return responses.Reset()


async def _throttled(faulty: FaultyRequest) -> Response:
    return faulty.refuse(throttled(faulty.fault.retry_after or 1))


async def _throttled_bare(faulty: FaultyRequest) -> Response:
    error = throttled(1)
    error.retry_after = None
    return faulty.refuse(error)


def _gateway(status: int) -> Kind:
    title = f"{status} {_TITLES.get(status) or HTTPStatus(status).phrase}"

    async def kind(faulty: FaultyRequest) -> Response:
        wait = faulty.fault.retry_after
        headers = {} if wait is None else {"Retry-After": str(wait)}
        return HTMLResponse(_PAGE.format(title), status, headers)

    return kind


def _altered(alter: Callable[[FaultyRequest, Response], Response | None]) -> Kind:
    """Return a kind that alters the normal response. Error responses stay as they are."""

    async def kind(faulty: FaultyRequest) -> Response:
        normal = await faulty.normal_response()
        return (alter(faulty, normal) if normal.status_code == 200 else None) or normal

    return kind


def _with_body(normal: Response, body: bytes | None, kind: type[Response] = Response) -> Response | None:
    if body is None:
        return None
    headers = {name: value for name, value in normal.headers.items() if name != "content-length"}
    return kind(body, normal.status_code, headers)


def _slow(faulty: FaultyRequest, normal: Response) -> Response | None:
    response = responses.Slow(normal.body, normal.status_code, dict(normal.headers))
    response.seconds = faulty.fault.seconds
    return response


async def _timeout(faulty: FaultyRequest) -> Response:
    await asyncio.sleep(faulty.fault.seconds)
    normal = await faulty.normal_response()
    return _with_body(normal, bytes(normal.body)) or normal


def _empty_page(faulty: FaultyRequest, normal: Response) -> Response | None:
    if pages.resolve_alias(faulty.request) is not None:
        return None  # an empty page must not lead to another empty page
    return _with_body(normal, pages.empty_page(faulty.request, bytes(normal.body), faulty.number))


async def _other_metric(faulty: FaultyRequest) -> Response:
    request = faulty.request
    in_filter = _METRIC_FILTER.search(request.query_params.get("filter", ""))
    in_path = _METRIC_PATH.fullmatch(request.url.path)
    requested = in_filter[2] if in_filter else in_path[1] if in_path else None
    other = None if requested is None else faulty.other_metric(requested)
    if requested is None or other is None:
        return await faulty.normal_response()
    parameters = [
        (name, _METRIC_FILTER.sub(rf"\g<1>{other}\g<3>", value)) for name, value in request.query_params.items()
    ]
    response = await faulty.answer(pages.with_parameters(request, parameters, **({"id": other} if in_path else {})))
    head, mark, links = bytes(response.body).rpartition(b'"links":')
    body = head + mark + links.replace(other.encode(), requested.encode()) if mark else links
    return _with_body(response, body) or response


async def _redirect(faulty: FaultyRequest) -> Response:
    return Response(status_code=302, headers={"Location": f"{pages.OTHER_HOST}{faulty.request.url.path}"})


KINDS: dict[str, Kind] = {
    "reset": _reset,
    "truncated": _altered(lambda _, normal: _with_body(normal, bytes(normal.body), responses.Truncated)),
    "undecodable": _altered(lambda _, normal: responses.undecodable(normal.headers.get("content-type"))),
    "timeout": _timeout,
    "slow": _altered(_slow),
    "429": _throttled,
    "429_bare": _throttled_bare,
    **{str(status): _gateway(status) for status in (500, 502, 503, 504, 524)},
    "html_200": _gateway(200),
    "not_json": _altered(lambda _, normal: _with_body(normal, bytes(normal.body[: len(normal.body) // 2]))),
    "not_jsonapi": _altered(lambda _, normal: _with_body(normal, dump({"message": "Welcome.", "version": 1}))),
    "empty_body": _altered(lambda _, normal: _with_body(normal, b"")),
    "empty_page": _altered(_empty_page),
    "repeated_cursor": _altered(
        lambda faulty, normal: _with_body(normal, pages.repeated_page(faulty.request, bytes(normal.body)))
    ),
    "foreign_link": _altered(
        lambda faulty, normal: _with_body(normal, pages.foreign_page(faulty.request, bytes(normal.body)))
    ),
    "other_metric": _other_metric,
    "redirect": _redirect,
    "bomb": _altered(lambda _, normal: responses.bomb(normal.headers.get("content-type"))),
}
HARSH = ("repeated_cursor", "foreign_link", "other_metric", "redirect", "bomb")
MILD = tuple(name for name in KINDS if name not in HARSH)  # a retry after one of these gets the right response


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise ValueError if a kind is unknown."""
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(f"unknown kinds {', '.join(unknown)}. Use {', '.join(KINDS)}.")
