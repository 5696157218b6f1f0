"""The control API under /sandbox/: tests use it to read the truth about the account, and to change the account.

It is not part of Klaviyo's API, needs no key, and answers requests from this machine only.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.account.timeline import Window
from sandbox.api.limits import Limit
from sandbox.faults.chaos import Chaos
from sandbox.faults.kinds import Fault
from sandbox.legacy.dialect import LEGACY_MODES
from sandbox.server.account_control import AccountControl
from sandbox.server.errors import BadRequest
from sandbox.server.limiter import Limiter
from sandbox.server.state import ServerState

_LIMIT_MODES = ("real", "published", "off")
_SERVER_SETTINGS = frozenset(("latency_ms", "most_events", "largest_page", "oldest_revision", "limits", "others"))
Handler = Callable[[Request], Awaitable[Response]]


def control_routes(state: ServerState) -> list[Route]:
    """Return the routes of the control API."""
    server, account = _ServerControl(state), AccountControl(state.account)
    return [
        _route("GET", "state", server.state),
        _route("GET", "events", account.events),
        _route("GET", "profiles", account.profiles),
        _route("POST", "events", account.add_events),
        _route("DELETE", "events/{id}", account.remove_event),
        _route("POST", "events/{id}/attributions", account.attribute),
        _route("POST", "days", account.add_days),
        _route("POST", "aggregates", account.falsify_count),
        _route("POST", "profiles", account.add_profile),
        _route("POST", "profiles/{id}", account.change_profile),
        _route("DELETE", "profiles/{id}", account.erase_profile),
        _route("POST", "profiles/{id}/merge", account.merge_profile),
        _route("POST", "profiles/{id}/suppressions", account.suppress),
        _route("DELETE", "profiles/{id}/suppressions", account.lift),
        _route("POST", "keys", server.add_key),
        _route("POST", "faults", server.set_faults),
        _route("POST", "chaos", server.set_chaos),
        _route("POST", "server", server.set_server),
        _route("GET", "traffic", server.traffic),
        _route("POST", "legacy", server.set_legacy),
        _route("POST", "{kind}/{id}", account.change),
        _route("DELETE", "{kind}/{id}", account.delete),
        _route("POST", "{kind}/{id}/restore", account.restore),
        _route("POST", "lists/{list}/profiles/{id}", account.join),
        _route("DELETE", "lists/{list}/profiles/{id}", account.leave),
    ]


def _route(method: str, path: str, handler: Handler) -> Route:
    async def handle(request: Request) -> Response:
        if request.client is not None and request.client.host not in ("127.0.0.1", "::1", "testclient"):
            return JSONResponse({"error": "The control API answers requests from this machine only."}, 403)
        try:
            return await handler(request)
        except (BadRequest, KeyError, TypeError, ValueError) as error:
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400)

    return Route(f"/sandbox/{path}", handle, methods=[method])


class _ServerControl:
    """The endpoints of the control API that concern the server."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def state(self, request: Request) -> Response:
        state, account = self._state, self._state.account
        metrics = [
            {"id": row.id, "name": row.name, "count": account.timeline.count(Window(row.number))}
            for row in account.metrics.values()
        ]
        return JSONResponse(
            {
                "account": account.options.account,
                "until": account.options.until.isoformat(),
                "since": datetime.fromtimestamp(account.options.start, UTC).isoformat(),
                "members": len(account.people) - len(account.people.erased),
                "events": len(account.timeline),
                "metrics": metrics,
                "campaigns": len(account.campaigns),
                "flows": len(account.flows),
                "lists": {row.id: len(row.joined) for row in account.lists.values()},
                "segments": {row.id: len(row.joined) for row in account.segments.values()},
                "requests": dict(state.requests),
                "answers": dict(state.answers),
                "per_second": dict(state.traffic.peak),
                "chaos": dict(state.faults_met),
                "legacy": state.legacy,
                "faults": [asdict(fault) for fault in state.faults if fault.times > 0],
            }
        )

    async def add_key(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self._state.keys[body["key"]] = frozenset(body["scopes"])
        return JSONResponse({"key": body["key"]})

    async def set_faults(self, request: Request) -> Response:
        self._state.faults = [Fault(**fault) for fault in json.loads(await request.body())]
        return JSONResponse({"faults": [asdict(fault) for fault in self._state.faults]})

    async def set_chaos(self, request: Request) -> Response:
        self._state.chaos = Chaos(**json.loads(await request.body()))
        return JSONResponse({"kinds": list(self._state.chaos.kinds)})

    async def set_server(self, request: Request) -> Response:
        settings, state = json.loads(await request.body()), self._state
        _check_server_settings(settings)
        if "latency_ms" in settings:
            state.latency = float(settings["latency_ms"]) / 1000
        if "most_events" in settings:
            state.max_events = int(settings["most_events"])
        if "largest_page" in settings:
            state.largest_page = int(settings["largest_page"])
        if "oldest_revision" in settings:
            state.oldest_revision = str(settings["oldest_revision"])
        if "limits" in settings:
            state.limiter = _limiter(settings["limits"], settings.get("others", {}))
        return JSONResponse(settings)

    async def traffic(self, request: Request) -> Response:
        state = self._state
        seconds = state.traffic.seconds(state.clock())
        return JSONResponse(
            {
                endpoint: {"seconds": counts, "throttled": state.answers[f"{endpoint} 429"]}
                for endpoint, counts in seconds.items()
            }
        )

    async def set_legacy(self, request: Request) -> Response:
        mode = json.loads(await request.body())["mode"]
        if mode not in LEGACY_MODES:
            raise BadRequest(f"mode must be one of {', '.join(LEGACY_MODES)}")
        self._state.legacy = mode
        return JSONResponse({"mode": mode})


def _check_server_settings(settings: dict[str, Any]) -> None:
    unknown = set(settings) - _SERVER_SETTINGS
    if unknown:
        names = ", ".join(sorted(_SERVER_SETTINGS))
        raise BadRequest(f"unknown settings {', '.join(sorted(unknown))}; the settings are {names}")
    if settings.get("limits", "off") not in _LIMIT_MODES:
        raise BadRequest(f"limits must be one of {', '.join(_LIMIT_MODES)}")


def _limiter(mode: str, others: dict[str, list[int]]) -> Limiter | None:
    if mode == "off":
        return None
    return Limiter(overrides={name: Limit(*numbers) for name, numbers in others.items()})
