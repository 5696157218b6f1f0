"""The ASGI application, which counts, delays, throttles and answers requests to the endpoints of both dialects."""

import asyncio
from typing import Any
from urllib.parse import unquote_plus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.api.endpoint import Endpoint
from sandbox.api.errors import ApiError, throttled
from sandbox.api.limits import Limit
from sandbox.current.dialect import CURRENT
from sandbox.current.endpoints import current_endpoints
from sandbox.faults.kinds import Fault, FaultyRequest
from sandbox.faults.pages import resolve_alias
from sandbox.legacy.endpoints import legacy_endpoints
from sandbox.server.control import control_routes
from sandbox.server.state import ServerState


def application(state: ServerState) -> Starlette:
    """Return the application that serves both dialects and the control API."""
    endpoints = [*current_endpoints(state.account), *legacy_endpoints(state.account)]
    routes = [
        Route(path, _Handler(state, endpoint).handle, methods=[endpoint.method])
        for endpoint in endpoints
        for path in (endpoint.path, f"{endpoint.path}/")
    ]
    handlers: dict[Any, Any] = {HTTPException: _http_error}
    return Starlette(routes=[*routes, *control_routes(state)], exception_handlers=handlers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    detail = f"No endpoint answers {request.method} {request.url.path}."
    return CURRENT.refuse(ApiError(error.status_code, code, detail), 0)


class _Handler:
    """The request handler of one endpoint."""

    def __init__(self, state: ServerState, endpoint: Endpoint) -> None:
        self._state, self._endpoint = state, endpoint

    async def handle(self, request: Request) -> Response:
        """Answer a request, with a fault if one is due."""
        state, name = self._state, self._endpoint.name
        state.requests[name] += 1
        state.traffic.count(name, state.clock())
        fault = state.next_fault(name, unquote_plus(request.url.query))
        if state.latency:
            await asyncio.sleep(state.latency)
        response = await (self._answer(request) if fault is None else self._answer_with_fault(request, fault))
        state.answers[f"{name} {response.status_code}"] += 1
        return response

    async def _answer(self, request: Request) -> Response:
        request = resolve_alias(request) or request
        endpoint, dialect = self._endpoint, self._endpoint.dialect
        try:
            await dialect.admit(self._state, request, endpoint.scopes)
            headers = self._throttle(request)
            body = await endpoint.answer(self._state, request)
        except ApiError as error:
            return self._refuse(error)
        return Response(body, headers=headers, media_type=dialect.media_type)

    def _refuse(self, error: ApiError) -> Response:
        return self._endpoint.dialect.refuse(error, sum(self._state.requests.values()))

    async def _answer_with_fault(self, request: Request, fault: Fault) -> Response:
        state = self._state
        number, other_metric = sum(state.faults_met.values()), state.account.busiest_other_metric
        faulty = FaultyRequest(request, fault, number, self._answer, self._refuse, other_metric)
        response = await faulty.respond()
        if not faulty.is_normal(response):
            state.faults_met[fault.kind or "status"] += 1
        return response

    def _throttle(self, request: Request) -> dict[str, str]:
        """Count the request against its limits and return the headers of the strictest one."""
        limiter, endpoint = self._state.limiter, self._endpoint
        if limiter is None:
            return {}
        limits = [*_extra_limits(endpoint, request), (endpoint.name, endpoint.limit)]
        for name, limit in limits:
            wait = limiter.take(name, limit)
            if wait:
                raise throttled(wait)
        return limiter.headers(*limits[0]) if endpoint.dialect.sends_limit_headers else {}


def _extra_limits(endpoint: Endpoint, request: Request) -> list[tuple[str, Limit]]:
    return [
        (f"{parameter}={value}", limit)
        for (parameter, value), limit in endpoint.dialect.extra_limits.items()
        if value in request.query_params.get(parameter, "").split(",")
    ]
