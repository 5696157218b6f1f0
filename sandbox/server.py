"""The HTTP side: who may ask, how often, and what is answered. What only the legacy dialect does is not known here."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import time
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox import allowed, limits, wrong_pages
from sandbox.account import Account
from sandbox.chaos import Chaos, Fault, Meeting, meet
from sandbox.content import dump
from sandbox.errors import ApiError, throttled
from sandbox.ids import uuid
from sandbox.limits import Limit, Limiter
from sandbox.traffic import Traffic

API_KEY = "pk_sandbox"
MEDIA_TYPE = "application/vnd.api+json"
LEGACY_MODES = ("on", "gone", "off")
_EVERYTHING = "*"
_STRICTER = {  # what may be asked for less often, at whichever endpoint
    ("additional-fields[profile]", "predictive_analytics"): limits.M,
    ("additional-fields[list]", "profile_count"): limits.XS,
    ("additional-fields[segment]", "profile_count"): limits.XS,
}


@dataclass
class Box:
    """An account and the state of the server in front of it."""

    account: Account
    limiter: Limiter | None = None
    latency: float = 0.0
    most_events: int = allowed.EVENTS.most  # on a page, however many are asked for
    clock: Callable[[], float] = time
    keys: dict[str, frozenset[str]] = field(default_factory=lambda: {API_KEY: frozenset({_EVERYTHING})})
    faults: list[Fault] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    chaos: Chaos = field(default_factory=Chaos)
    met: Counter[str] = field(default_factory=Counter)  # faults, by kind
    traffic: Traffic = field(default_factory=Traffic)
    legacy: str = "on"  # or "gone" (answers 410, as since 2024-06-30) or "off"

    def now(self) -> float:
        """The end of the account's time or the clock, whichever is later: beyond it lies the future."""
        return max(self.account.options.end, self.clock())

    def fault(self, endpoint: str) -> Fault | None:
        """The fault that this request shall meet: one that was asked for, or else one that is drawn."""
        drawn = self.chaos.draw(endpoint)
        for fault in self.faults:
            if fault.endpoint != endpoint or fault.times <= 0:
                continue
            if fault.after > 0:
                fault.after -= 1
                return None
            fault.times -= 1
            return fault
        return drawn


def _refusal(error: ApiError, count: int) -> Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Response(dump(error.body(uuid("error", count))), error.status, headers, MEDIA_TYPE)


async def _admit(box: Box, request: Request, scopes: tuple[str, ...]) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if not scheme:
        raise ApiError(401, "not_authenticated", "Missing authentication credentials.")
    if scheme not in ("Klaviyo-API-Key", "Bearer") or key not in box.keys:
        raise ApiError(401, "authentication_failed", "Incorrect authentication credentials.")
    held = box.keys[key]
    if _EVERYTHING not in held and not set(scopes) <= held:
        missing = ", ".join(sorted(set(scopes) - held))
        raise ApiError(403, "permission_denied", f"The API key is missing the required scopes: {missing}.")
    revision = request.headers.get("revision", "")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}(\.pre)?", revision):
        raise ApiError(400, "invalid", "The revision header must be a valid revision.", {"parameter": "revision"})


@dataclass(frozen=True)
class Dialect:
    """What each dialect of the API does in its own way: it lets keys in, refuses, and may tell its rate limits."""

    admit: Callable[[Box, Request, tuple[str, ...]], Awaitable[None]]
    refuse: Callable[[ApiError, int], Response]
    media_type: str
    tells_limits: bool = True


CURRENT = Dialect(_admit, _refusal, MEDIA_TYPE)


@dataclass(frozen=True)
class Endpoint:
    """One path of the API: the scopes that a key needs, its rate limit, and what answers."""

    method: str
    path: str
    scopes: tuple[str, ...]
    limit: Limit
    answer: Callable[[Box, Request], Awaitable[bytes]]
    dialect: Dialect = CURRENT

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    async def __call__(self, box: Box, request: Request) -> Response:
        box.requests[self.name] += 1
        box.traffic.note(self.name, box.clock())
        fault = box.fault(self.name)
        if box.latency:
            await asyncio.sleep(box.latency)
        response = await (self._good(box, request) if fault is None else self._faulty(box, request, fault))
        box.answers[f"{self.name} {response.status_code}"] += 1
        return response

    async def _good(self, box: Box, request: Request) -> Response:
        request = wrong_pages.original(request) or request
        try:
            await self.dialect.admit(box, request, self.scopes)
            headers = self._throttle(box, request)
            body = await self.answer(box, request)
        except ApiError as error:
            return self._refused(box, error)
        return Response(body, headers=headers, media_type=self.dialect.media_type)

    def _refused(self, box: Box, error: ApiError) -> Response:
        return self.dialect.refuse(error, sum(box.requests.values()))

    async def _faulty(self, box: Box, request: Request, fault: Fault) -> Response:
        meeting = Meeting(
            request,
            fault,
            sum(box.met.values()),
            box.account,
            lambda asked: self._good(box, asked),
            lambda error: self._refused(box, error),
        )
        response = await meet(meeting)
        if not meeting.spared(response):
            box.met[fault.kind or "status"] += 1
        return response

    def _throttle(self, box: Box, request: Request) -> dict[str, str]:
        if box.limiter is None:
            return {}
        stricter = [
            ("=".join(asked), limit)
            for asked, limit in _STRICTER.items()
            if asked[1] in request.query_params.get(asked[0], "").split(",")
        ]
        used = [*stricter, (self.name, self.limit)]
        for name, limit in used:
            wait = box.limiter.take(name, limit)
            if wait:
                raise throttled(wait)
        return box.limiter.headers(*used[0]) if self.dialect.tells_limits else {}


def application(box: Box, endpoints: list[Endpoint], others: list[Route]) -> Starlette:
    """The ASGI application: the API's endpoints, and routes that are not Klaviyo's."""
    routes = [
        Route(path, _handler(box, endpoint), methods=[endpoint.method])
        for endpoint in endpoints
        for path in (endpoint.path, f"{endpoint.path}/")
    ]
    handlers: dict[Any, Any] = {HTTPException: _http_error}
    return Starlette(routes=[*routes, *others], exception_handlers=handlers)


def _handler(box: Box, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        return await endpoint(box, request)

    return handle


async def _http_error(request: Request, error: HTTPException) -> Response:
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    refused = ApiError(error.status_code, code, f"No endpoint answers {request.method} {request.url.path}.")
    return _refusal(refused, 0)
