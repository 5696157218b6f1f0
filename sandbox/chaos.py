"""Faults that requests meet, by name: those that a test asks for, and those that are drawn, the same for the same seed.

Whether the n-th request to an endpoint meets a fault, and which, depends on nothing but the seed, the endpoint and n.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from sandbox import broken, wrong_pages
from sandbox.account import Account
from sandbox.content import dump
from sandbox.errors import ApiError, throttled
from sandbox.ids import number
from sandbox.timeline import Window

_FINE = 1_000_000  # steps of a rate
_TITLES = {524: "A Timeout Occurred"}
_PAGE = "<!DOCTYPE html>\n<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>\n"
_ASKED_METRIC = re.compile(r'(equals\(metric_id,")([^"]*)("\))')


@dataclass
class Fault:
    """The next `times` requests to an endpoint, after `after` good ones, meet this fault.

    `kind` is a name in KINDS; without one, they get this status in the words of the API. `cut` is an older name of
    the kind "truncated". `seconds` are those of a timeout or of a slow answer.
    """

    endpoint: str
    status: int = 503
    times: int = 1
    retry_after: int | None = None
    after: int = 0
    cut: bool = False
    kind: str = ""
    seconds: float = 5.0

    def __post_init__(self) -> None:
        self.kind = self.kind or ("truncated" if self.cut else "")
        if self.kind:
            _check([self.kind])


@dataclass
class Meeting:
    """One request and its fault: what would be answered without it, and how the dialect refuses."""

    request: Request
    fault: Fault
    number: int
    account: Account
    answer: Callable[[Request], Awaitable[Response]]
    refuse: Callable[[ApiError], Response]
    _good: Response | None = None

    async def good(self) -> Response:
        """The answer without the fault."""
        if self._good is None:
            self._good = await self.answer(self.request)
        return self._good

    def spared(self, response: Response) -> bool:
        """Is this the answer without the fault, because the fault does not apply?"""
        return response is self._good


Kind = Callable[[Meeting], Awaitable[Response]]


async def meet(meeting: Meeting) -> Response:
    """What the request is answered with."""
    return await (KINDS[meeting.fault.kind] if meeting.fault.kind else _status)(meeting)


async def _status(meeting: Meeting) -> Response:
    fault = meeting.fault
    if fault.status == 429:
        return meeting.refuse(throttled(fault.retry_after or 1))
    error = ApiError(fault.status, "error", "A fault that was asked for.")
    error.retry_after = fault.retry_after
    return meeting.refuse(error)


async def _reset(meeting: Meeting) -> Response:
    return broken.Reset()


async def _throttled(meeting: Meeting) -> Response:
    return meeting.refuse(throttled(meeting.fault.retry_after or 1))


async def _throttled_bare(meeting: Meeting) -> Response:
    error = throttled(1)
    error.retry_after = None
    return meeting.refuse(error)


def _gateway(status: int) -> Kind:
    title = f"{status} {_TITLES.get(status) or HTTPStatus(status).phrase}"

    async def kind(meeting: Meeting) -> Response:
        wait = meeting.fault.retry_after
        headers = {} if wait is None else {"Retry-After": str(wait)}
        return HTMLResponse(_PAGE.format(title), status, headers)

    return kind


def _spoilt(spoil: Callable[[Meeting, Response], Response | None]) -> Kind:
    """A kind that needs the good answer; refusals stay as they are."""

    async def kind(meeting: Meeting) -> Response:
        good = await meeting.good()
        return (spoil(meeting, good) if good.status_code == 200 else None) or good

    return kind


def _with_body(good: Response, body: bytes | None, kind: type[Response] = Response) -> Response | None:
    if body is None:
        return None
    headers = {name: value for name, value in good.headers.items() if name != "content-length"}
    return kind(body, good.status_code, headers)


def _slow(meeting: Meeting, good: Response) -> Response | None:
    answer = broken.Slow(good.body, good.status_code, dict(good.headers))
    answer.seconds = meeting.fault.seconds
    return answer


async def _timeout(meeting: Meeting) -> Response:
    await asyncio.sleep(meeting.fault.seconds)
    good = await meeting.good()
    return _with_body(good, bytes(good.body)) or good


def _empty_page(meeting: Meeting, good: Response) -> Response | None:
    if wrong_pages.original(meeting.request) is not None:
        return None  # to one page without rows no other leads
    return _with_body(good, wrong_pages.empty(meeting.request, bytes(good.body), meeting.number))


async def _other_metric(meeting: Meeting) -> Response:
    request, account = meeting.request, meeting.account
    in_filter = _ASKED_METRIC.search(request.query_params.get("filter", ""))
    in_path = re.fullmatch(r"/api/v1/metric/([^/]*)/timeline/?", request.url.path)
    asked = in_filter[2] if in_filter else in_path[1] if in_path else None
    others = [row for row in account.metrics.values() if row.id != asked]
    if asked is None or not others:
        return await meeting.good()
    other = max(others, key=lambda row: account.timeline.count(Window(row.number))).id
    given = [(name, _ASKED_METRIC.sub(rf"\g<1>{other}\g<3>", value)) for name, value in request.query_params.items()]
    answer = await meeting.answer(wrong_pages.asked_instead(request, given, **({"id": other} if in_path else {})))
    head, mark, links = bytes(answer.body).rpartition(b'"links":')
    return _with_body(answer, head + mark + links.replace(other.encode(), asked.encode()) if mark else links) or answer


async def _redirect(meeting: Meeting) -> Response:
    return Response(status_code=302, headers={"Location": f"{wrong_pages.NOWHERE}{meeting.request.url.path}"})


KINDS: dict[str, Kind] = {
    "reset": _reset,
    "truncated": _spoilt(lambda _, good: _with_body(good, bytes(good.body), broken.Truncated)),
    "undecodable": _spoilt(lambda _, good: broken.undecodable(good.headers.get("content-type"))),
    "timeout": _timeout,
    "slow": _spoilt(_slow),
    "429": _throttled,
    "429_bare": _throttled_bare,
    **{str(status): _gateway(status) for status in (500, 502, 503, 504, 524)},
    "html_200": _gateway(200),
    "not_json": _spoilt(lambda _, good: _with_body(good, bytes(good.body[: len(good.body) // 2]))),
    "not_jsonapi": _spoilt(lambda _, good: _with_body(good, dump({"message": "Welcome.", "version": 1}))),
    "empty_body": _spoilt(lambda _, good: _with_body(good, b"")),
    "empty_page": _spoilt(_empty_page),
    # From here on: what asking again does not mend, or no client should be made to read.
    "repeated_cursor": _spoilt(
        lambda meeting, good: _with_body(good, wrong_pages.repeated(meeting.request, bytes(good.body)))
    ),
    "foreign_link": _spoilt(
        lambda meeting, good: _with_body(good, wrong_pages.foreign(meeting.request, bytes(good.body)))
    ),
    "other_metric": _other_metric,
    "redirect": _redirect,
    "bomb": _spoilt(lambda _, good: broken.bomb(good.headers.get("content-type"))),
}
HARSH = ("repeated_cursor", "foreign_link", "other_metric", "redirect", "bomb")
MILD = tuple(name for name in KINDS if name not in HARSH)  # after these, asking again gives the right answer


def _check(kinds: Sequence[str]) -> None:
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(f"unknown kinds {unknown}; known are {', '.join(KINDS)}")


@dataclass
class Chaos:
    """Draws a fault for a share of the requests to the endpoints whose name ("GET /api/events") `paths` is found in."""

    rate: float = 0.0
    seed: int = 0
    kinds: Sequence[str] = MILD
    paths: str = ""
    seconds: float = 5.0
    retry_after: int = 1
    _counts: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1 or not self.kinds:
            raise ValueError("a rate is between 0 and 1, and there is at least one kind")
        _check(self.kinds)
        re.compile(self.paths)

    def draw(self, endpoint: str) -> Fault | None:
        """The fault of the next request to this endpoint."""
        count = self._counts[endpoint]
        self._counts[endpoint] += 1
        if not self.rate or not re.search(self.paths, endpoint):
            return None
        choice, chance = divmod(number("chaos", self.seed, endpoint, count), _FINE)
        if chance >= self.rate * _FINE:
            return None
        kind = self.kinds[choice % len(self.kinds)]
        wait = self.retry_after if kind == "429" else None
        return Fault(endpoint, kind=kind, seconds=self.seconds, retry_after=wait)
