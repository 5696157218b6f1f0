"""The control API under /sandbox/: what tests read to know the truth, and how they change the account.

It is not Klaviyo's, asks for no key, and is reached from this machine only.
"""

import json
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from sandbox.account import Account
from sandbox.chaos import Chaos, Fault
from sandbox.content import dump
from sandbox.ids import token
from sandbox.limits import Limit, Limiter
from sandbox.people import PROFILE_FIELDS, Suppression
from sandbox.properties import as_number
from sandbox.server import LEGACY_MODES, Box
from sandbox.timeline import NOBODY, AddedEvent, Window

_SHOWN = {  # of an event, and may be wrong or missing
    *("type", "id", "attributes", "relationships", "links"),
    *("timestamp", "datetime", "event_properties", "uuid"),
    *("metric", "profile"),
}
_DELETABLE = ("campaigns", "flows", "lists", "segments", "metrics")
_LIMITS = ("real", "published", "off")
_LINES = 5_000  # of NDJSON in one chunk


class _Wrong(Exception):
    """A request to the control API that makes no sense."""


def routes(box: Box) -> list[Route]:
    """The routes of the control API."""
    control = _Control(box)
    return [
        Route("/sandbox/state", _safe(control.state)),
        Route("/sandbox/events", _safe(control.events)),
        Route("/sandbox/profiles", _safe(control.profiles)),
        Route("/sandbox/events", _safe(control.add_events), methods=["POST"]),
        Route("/sandbox/events/{id}", _safe(control.remove_event), methods=["DELETE"]),
        Route("/sandbox/aggregates", _safe(control.lie), methods=["POST"]),
        Route("/sandbox/profiles", _safe(control.add_profile), methods=["POST"]),
        Route("/sandbox/profiles/{id}", _safe(control.change_profile), methods=["POST"]),
        Route("/sandbox/profiles/{id}", _safe(control.erase_profile), methods=["DELETE"]),
        Route("/sandbox/keys", _safe(control.add_key), methods=["POST"]),
        Route("/sandbox/faults", _safe(control.set_faults), methods=["POST"]),
        Route("/sandbox/chaos", _safe(control.set_chaos), methods=["POST"]),
        Route("/sandbox/server", _safe(control.set_server), methods=["POST"]),
        Route("/sandbox/traffic", _safe(control.traffic)),
        Route("/sandbox/legacy", _safe(control.set_legacy), methods=["POST"]),
        Route("/sandbox/{kind}/{id}", _safe(control.change), methods=["POST"]),
        Route("/sandbox/{kind}/{id}", _safe(control.delete), methods=["DELETE"]),
        Route("/sandbox/{kind}/{id}/restore", _safe(control.restore), methods=["POST"]),
        Route("/sandbox/lists/{list}/profiles/{id}", _safe(control.join), methods=["POST"]),
        Route("/sandbox/lists/{list}/profiles/{id}", _safe(control.leave), methods=["DELETE"]),
    ]


def _safe(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        if request.client is not None and request.client.host not in ("127.0.0.1", "::1", "testclient"):
            return JSONResponse({"error": "The control API answers this machine only."}, 403)
        try:
            return await answer(request)
        except (_Wrong, KeyError, TypeError, ValueError) as error:
            return JSONResponse({"error": f"{type(error).__name__.strip('_')}: {error}"}, 400)

    return handle


def _moment(value: Any) -> datetime:
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _seconds(value: Any) -> int:
    return int(_moment(value).timestamp())


class _Control:
    """The answers."""

    def __init__(self, box: Box) -> None:
        self._box = box

    @property
    def _account(self) -> Account:
        return self._box.account

    async def state(self, request: Request) -> Response:
        account = self._account
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
                "requests": dict(self._box.requests),
                "answers": dict(self._box.answers),
                "per_second": dict(self._box.traffic.most),
                "chaos": dict(self._box.met),
                "legacy": self._box.legacy,
                "faults": [asdict(fault) for fault in self._box.faults if fault.times > 0],
            }
        )

    async def events(self, request: Request) -> Response:
        return _lines(self._event_truths())

    def _event_truths(self) -> Iterator[dict[str, Any]]:
        account, timeline = self._account, self._account.timeline
        for ref in timeline.every():
            metric, person = timeline.metric(ref), timeline.person(ref)
            message, flow = timeline.message_and_flow(ref)
            yield {
                "id": timeline.id(ref),
                "metric_id": None if metric is None else account.metric_ids[metric],
                "profile_id": None if person == NOBODY else account.people.id(person),
                "timestamp": timeline.time(ref),
                "message": message,
                "flow": flow,
            }

    async def profiles(self, request: Request) -> Response:
        people = self._account.people
        return _lines({"id": people.id(index), "email": people.email(index)} for index in people.indexes())

    async def add_events(self, request: Request) -> Response:
        given = json.loads(await request.body())
        return JSONResponse({"ids": [self._add_event(event) for event in given]})

    def _add_event(self, given: dict[str, Any]) -> Any:
        account, timeline = self._account, self._account.timeline
        known = {
            "metric",
            "timestamp",
            "datetime",
            "profile_id",
            "properties",
            "id",
            "duplicate",
            "raw",
            "omit",
            "json",
            "json_base64",
        }
        if not set(given) <= known:
            raise _Wrong(f"unknown members {sorted(set(given) - known)}")
        time = _seconds(given["timestamp"] if "timestamp" in given else given["datetime"])
        event_id = given.get("id") or token("added", account.options.account, len(timeline.added), size=11)
        if timeline.find(event_id) is not None and not given.get("duplicate"):
            raise _Wrong(f"there is an event {event_id}; say duplicate=true to have it twice")
        shown: dict[str, Any] = {"id": event_id, "timestamp": time, **given.get("raw", {})}
        odd = _odd_members(given)
        properties = {"$event_id": str(time), **given.get("properties", {})}
        metric = given["metric"]
        person = self._person(given["profile_id"]) if given.get("profile_id") else NOBODY
        if person != NOBODY:
            account.people.seen(person, time)
            account.generation += 1
        timeline.add(
            AddedEvent(
                time=time,
                metric=None if metric is None else account.metric(metric).number,
                person=person,
                properties=_text(given) or dump(properties),
                id=odd.pop("id", dump(event_id)),
                timestamp=odd.pop("timestamp", b"%d" % time),
                message=properties.get("$message"),
                flow=properties.get("$flow"),
                value=as_number(properties.get("$value")),
                odd=odd,
            )
        )
        return shown["id"]

    def _person(self, profile_id: str) -> int:
        index = self._account.people.index_of(profile_id)
        if index is None:
            raise _Wrong(f"no profile {profile_id}")
        return index

    async def add_profile(self, request: Request) -> Response:
        given = json.loads(await request.body())
        created = _seconds(given.pop("created", self._account.options.end))
        index = self._account.people.add(_attributes(given), created)
        self._account.generation += 1
        return JSONResponse({"id": self._account.people.id(index)})

    async def change_profile(self, request: Request) -> Response:
        given = json.loads(await request.body())
        index, people = self._person(request.path_params["id"]), self._account.people
        updated = _seconds(given.pop("updated", self._account.options.end))
        if "suppressions" in given:
            people.suppressions[index] = [
                Suppression(found["reason"], _seconds(found["timestamp"]), found.get("list_id"))
                for found in given.pop("suppressions")
            ]
        people.change(index, _attributes(given), updated)
        self._account.generation += 1
        return JSONResponse({"id": people.id(index)})

    async def add_key(self, request: Request) -> Response:
        given = json.loads(await request.body())
        self._box.keys[given["key"]] = frozenset(given["scopes"])
        return JSONResponse({"key": given["key"]})

    async def set_faults(self, request: Request) -> Response:
        self._box.faults = [Fault(**fault) for fault in json.loads(await request.body())]
        return JSONResponse({"faults": [asdict(fault) for fault in self._box.faults]})

    async def set_chaos(self, request: Request) -> Response:
        self._box.chaos = Chaos(**json.loads(await request.body()))
        return JSONResponse({"kinds": list(self._box.chaos.kinds)})

    async def set_server(self, request: Request) -> Response:
        given = json.loads(await request.body())
        known = {"latency_ms", "most_events", "limits", "others"}
        if not set(given) <= known or given.get("limits", "off") not in _LIMITS:
            raise _Wrong(
                "what can be set is latency_ms, most_events on a page,"
                f" and limits to one of {', '.join(_LIMITS)}, with others for endpoints"
            )
        if "latency_ms" in given:
            self._box.latency = float(given["latency_ms"]) / 1000
        if "most_events" in given:
            self._box.most_events = int(given["most_events"])
        if "limits" in given:
            self._box.limiter = None if given["limits"] == "off" else Limiter(others=_limits(given.get("others", {})))
        return JSONResponse(given)

    async def traffic(self, request: Request) -> Response:
        box = self._box
        seconds = box.traffic.seconds(box.clock())
        return JSONResponse(
            {
                endpoint: {"seconds": found, "throttled": box.answers[f"{endpoint} 429"]}
                for endpoint, found in seconds.items()
            }
        )

    async def set_legacy(self, request: Request) -> Response:
        mode = json.loads(await request.body())["mode"]
        if mode not in LEGACY_MODES:
            raise _Wrong(f"the mode is one of {', '.join(LEGACY_MODES)}")
        self._box.legacy = mode
        return JSONResponse({"mode": mode})

    async def change(self, request: Request) -> Response:
        given = json.loads(await request.body())
        times = ("created", "updated", "created_at", "updated_at", "scheduled_at", "send_time")
        attributes = {name: _moment(value) if name in times and value else value for name, value in given.items()}
        self._account.change(request.path_params["kind"], request.path_params["id"], attributes)
        return JSONResponse({"id": request.path_params["id"]})

    async def delete(self, request: Request) -> Response:
        if request.path_params["kind"] not in _DELETABLE:
            raise _Wrong(f"only {', '.join(_DELETABLE)} can be deleted")
        self._account.delete(request.path_params["kind"], request.path_params["id"])
        return JSONResponse({"id": request.path_params["id"]})

    async def restore(self, request: Request) -> Response:
        self._account.restore(request.path_params["kind"], request.path_params["id"])
        return JSONResponse({"id": request.path_params["id"]})

    async def erase_profile(self, request: Request) -> Response:
        self._account.erase(self._person(request.path_params["id"]))
        return JSONResponse({"id": request.path_params["id"]})

    async def remove_event(self, request: Request) -> Response:
        ref = self._account.timeline.find(request.path_params["id"])
        if ref is None:
            raise _Wrong(f"no event {request.path_params['id']}")
        self._account.timeline.remove(ref)
        return JSONResponse({"id": request.path_params["id"]})

    async def lie(self, request: Request) -> Response:
        given = json.loads(await request.body())
        metric, add = self._account.number_of(given["metric"]), int(given["add"])
        self._account.lie(metric, date.fromisoformat(given["day"]), add)
        return JSONResponse({"metric": self._account.metric_ids[metric]})

    async def join(self, request: Request) -> Response:
        given = json.loads(await request.body() or b"{}")
        joined = _seconds(given.get("joined_group_at", self._account.options.end))
        self._account.lists[request.path_params["list"]].joined[self._person(request.path_params["id"])] = joined
        self._account.generation += 1
        return JSONResponse({"id": request.path_params["id"]})

    async def leave(self, request: Request) -> Response:
        del self._account.lists[request.path_params["list"]].joined[self._person(request.path_params["id"])]
        self._account.generation += 1
        return JSONResponse({"id": request.path_params["id"]})


def _text(event: dict[str, Any]) -> bytes | None:
    """What an event shall have in place of its properties, whether or not it is JSON."""
    if "json_base64" in event:
        return b64decode(event["json_base64"], validate=True)
    return event["json"].encode() if "json" in event else None


def _odd_members(event: dict[str, Any]) -> dict[str, bytes | None]:
    """What an event shows in place of what is usual. A wrong timestamp makes a wrong datetime, unless that is given."""
    odd: dict[str, bytes | None] = {name: dump(value) for name, value in event.get("raw", {}).items()}
    odd |= dict.fromkeys(event.get("omit", []))
    if not set(odd) <= _SHOWN:
        raise _Wrong(f"unknown members {sorted(set(odd) - _SHOWN)}")
    return {"datetime": odd["timestamp"], **odd} if "timestamp" in odd else odd


def _attributes(given: dict[str, Any]) -> dict[str, Any]:
    unknown = set(given) - PROFILE_FIELDS
    if unknown:
        raise _Wrong(f"unknown attributes {sorted(unknown)}")
    return {
        name: _seconds(value) if name.endswith(("_at", "_date")) and value else value for name, value in given.items()
    }


def _lines(rows: Iterator[dict[str, Any]]) -> Response:
    def chunks() -> Iterator[bytes]:
        lines: list[bytes] = []
        for row in rows:
            lines.append(dump(row) + b"\n")
            if len(lines) >= _LINES:
                yield b"".join(lines)
                lines.clear()
        yield b"".join(lines)

    return StreamingResponse(chunks(), media_type="application/x-ndjson")


def _limits(given: dict[str, list[int]]) -> dict[str, Limit]:
    return {name: Limit(burst, steady) for name, (burst, steady) in given.items()}
