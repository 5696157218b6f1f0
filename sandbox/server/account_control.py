"""The part of the control API that reads and changes the account."""

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Set
from datetime import UTC, date, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from sandbox.account import Account, Group
from sandbox.account.ids import token
from sandbox.account.people import CHANNELS, PROFILE_FIELDS, Suppression
from sandbox.account.properties import as_number
from sandbox.account.timeline import NOBODY, AddedEvent
from sandbox.derived import DerivedAccount
from sandbox.encoding import dump
from sandbox.server.errors import BadRequest

_OVERRIDABLE = frozenset(  # members of an event that may be wrong or missing
    [
        "type",
        "id",
        "attributes",
        "relationships",
        "links",
        "timestamp",
        "datetime",
        "event_properties",
        "uuid",
        "metric",
        "profile",
        "attributions",
    ]
)
_EVENT_MEMBERS = frozenset(
    [
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
    ]
)
_TIMES = ("created", "updated", "created_at", "updated_at", "scheduled_at", "send_time")
_DELETABLE = (
    *("campaigns", "flows", "lists", "segments", "metrics", "tags", "custom-metrics", "mapped-metrics"),
    *("templates", "forms", "images"),
    *("catalog-items", "catalog-variants", "catalog-categories", "coupons", "coupon-codes"),
    *("reviews", "push-tokens"),
)
_LINES = 5_000  # of NDJSON in one piece


class AccountControl:
    """The endpoints of the control API that concern the account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def events(self, request: Request) -> Response:
        return _ndjson(self._event_rows())

    def _event_rows(self) -> Iterator[dict[str, Any]]:
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
        return _ndjson({"id": people.id(index), "email": people.email(index)} for index in people.indexes())

    async def add_events(self, request: Request) -> Response:
        events = json.loads(await request.body())
        return JSONResponse({"ids": [self._add_event(event) for event in events]})

    def _add_event(self, event: dict[str, Any]) -> Any:
        account, timeline = self._account, self._account.timeline
        _refuse_unknown(event, _EVENT_MEMBERS, "members")
        time = _seconds(event["timestamp"] if "timestamp" in event else event["datetime"])
        event_id = event.get("id") or token("added", account.options.account, len(timeline.added), size=11)
        if timeline.find(event_id) is not None and not event.get("duplicate"):
            raise BadRequest(f"event {event_id} already exists; set duplicate=true to add it again")
        overrides = _overrides(event)
        properties = {"$event_id": str(time), **event.get("properties", {})}
        metric = event["metric"]
        person = self._record_person(event.get("profile_id"), time)
        timeline.add(
            AddedEvent(
                time=time,
                metric=None if metric is None else account.metric(metric).number,
                person=person,
                properties=_raw_properties(event) or dump(properties),
                id=overrides.pop("id", dump(event_id)),
                timestamp=overrides.pop("timestamp", b"%d" % time),
                message=properties.get("$message"),
                flow=properties.get("$flow"),
                value=as_number(properties.get("$value")),
                overrides=overrides,
            )
        )
        return event.get("raw", {}).get("id", event_id)

    def _record_person(self, profile_id: str | None, time: int) -> int:
        if not profile_id:
            return NOBODY
        person = self._person(profile_id)
        self._account.people.record_event(person, time)
        self._account.generation += 1
        return person

    def _person(self, profile_id: str) -> int:
        index = self._account.people.index_of(profile_id)
        if index is None:
            raise BadRequest(f"no profile {profile_id}")
        return index

    async def remove_event(self, request: Request) -> Response:
        self._account.timeline.remove(self._event(request.path_params["id"]))
        return JSONResponse({"id": request.path_params["id"]})

    async def attribute(self, request: Request) -> Response:
        touches = json.loads(await request.body())["to"]
        self._account.attributions.replace(
            self._event(request.path_params["id"]), [self._event(each) for each in touches]
        )
        return JSONResponse({"id": request.path_params["id"]})

    def _event(self, event_id: str) -> int:
        ref = self._account.timeline.find(event_id)
        if ref is None:
            raise BadRequest(f"no event {event_id}")
        return ref

    async def add_days(self, request: Request) -> Response:
        if not isinstance(self._account, DerivedAccount):
            raise BadRequest("days can be added to a large account only")
        self._account.add_days(int(json.loads(await request.body())["days"]))
        return JSONResponse({"until": datetime.fromtimestamp(self._account.options.end, UTC).isoformat()})

    async def falsify_count(self, request: Request) -> Response:
        body = json.loads(await request.body())
        metric, add = self._account.metric_number(body["metric"]), int(body["add"])
        self._account.falsify_count(metric, date.fromisoformat(body["day"]), add)
        return JSONResponse({"metric": self._account.metric_ids[metric]})

    async def add_profile(self, request: Request) -> Response:
        attributes = json.loads(await request.body())
        created = _seconds(attributes.pop("created", self._account.options.end))
        index = self._account.people.add(_profile_attributes(attributes), created)
        self._account.generation += 1
        return JSONResponse({"id": self._account.people.id(index)})

    async def change_profile(self, request: Request) -> Response:
        attributes = json.loads(await request.body())
        index, people = self._person(request.path_params["id"]), self._account.people
        updated = _seconds(attributes.pop("updated", self._account.options.end))
        rows = attributes.pop("suppressions", None)
        suppressions = [
            Suppression(row["reason"], _seconds(row["timestamp"]), row.get("list_id")) for row in rows or ()
        ]
        people.change(index, _profile_attributes(attributes), updated)
        if rows is not None:
            people.suppressions[index] = suppressions
        self._account.generation += 1
        return JSONResponse({"id": people.id(index)})

    async def erase_profile(self, request: Request) -> Response:
        self._account.erase(self._person(request.path_params["id"]))
        return JSONResponse({"id": request.path_params["id"]})

    async def merge_profile(self, request: Request) -> Response:
        body = json.loads(await request.body())
        old, new = self._person(request.path_params["id"]), self._person(body["into"])
        if old == new:
            raise BadRequest("a profile cannot be merged into itself")
        self._account.merge(old, new, self._moment_of_change(body))
        return JSONResponse({"id": body["into"]})

    async def suppress(self, request: Request) -> Response:
        body = json.loads(await request.body())
        index, at = self._person(request.path_params["id"]), self._moment_of_change(body)
        self._account.people.suppress(index, Suppression(body["reason"], at, body.get("list_id")))
        return self._changed(index, at)

    async def lift(self, request: Request) -> Response:
        body = json.loads(await request.body() or b"{}")
        index = self._person(request.path_params["id"])
        self._account.people.lift(index, body.get("list_id"), body.get("reason"))
        return self._changed(index, self._moment_of_change(body))

    def _moment_of_change(self, body: dict[str, Any]) -> int:
        return _seconds(body.get("timestamp", self._account.options.end))

    def _changed(self, index: int, at: int) -> Response:
        self._account.people.change(index, {}, at)
        self._account.generation += 1
        return JSONResponse({"id": self._account.people.id(index)})

    async def change(self, request: Request) -> Response:
        body = json.loads(await request.body())
        attributes = {name: _moment(value) if name in _TIMES and value else value for name, value in body.items()}
        self._account.change(request.path_params["kind"], request.path_params["id"], attributes)
        return JSONResponse({"id": request.path_params["id"]})

    async def delete(self, request: Request) -> Response:
        if request.path_params["kind"] not in _DELETABLE:
            raise BadRequest(f"only {', '.join(_DELETABLE)} can be deleted")
        self._account.delete(request.path_params["kind"], request.path_params["id"])
        return JSONResponse({"id": request.path_params["id"]})

    async def restore(self, request: Request) -> Response:
        self._account.restore(request.path_params["kind"], request.path_params["id"])
        return JSONResponse({"id": request.path_params["id"]})

    async def join(self, request: Request) -> Response:
        body = json.loads(await request.body() or b"{}")
        joined = _seconds(body.get("joined_group_at", self._account.options.end))
        self._group(request).joined[self._person(request.path_params["id"])] = joined
        self._account.generation += 1
        return JSONResponse({"id": request.path_params["id"]})

    async def leave(self, request: Request) -> Response:
        del self._group(request).joined[self._person(request.path_params["id"])]
        self._account.generation += 1
        return JSONResponse({"id": request.path_params["id"]})

    def _group(self, request: Request) -> Group:
        return (self._account.lists | self._account.segments)[request.path_params["list"]]


def _moment(value: Any) -> datetime:
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _seconds(value: Any) -> int:
    return int(_moment(value).timestamp())


def _refuse_unknown(names: Iterable[str], allowed: Set[str], noun: str) -> None:
    unknown = set(names) - allowed
    if unknown:
        raise BadRequest(f"unknown {noun} {', '.join(sorted(unknown))}")


def _raw_properties(event: dict[str, Any]) -> bytes | None:
    """Return the bytes that replace the event's properties. They need not be JSON."""
    if "json_base64" in event:
        return b64decode(event["json_base64"], validate=True)
    return event["json"].encode() if "json" in event else None


def _overrides(event: dict[str, Any]) -> dict[str, bytes | None]:
    """Return the members that differ from the usual. A wrong timestamp also makes the datetime wrong by default."""
    overrides: dict[str, bytes | None] = {name: dump(value) for name, value in event.get("raw", {}).items()}
    overrides |= dict.fromkeys(event.get("omit", []))
    _refuse_unknown(overrides, _OVERRIDABLE, "members")
    return {"datetime": overrides["timestamp"], **overrides} if "timestamp" in overrides else overrides


def _profile_attributes(body: dict[str, Any]) -> dict[str, Any]:
    _refuse_unknown(body, PROFILE_FIELDS, "attributes")
    _refuse_unknown(body.get("consents", {}), set(CHANNELS), "channels")
    return {
        name: _seconds(value) if name.endswith(("_at", "_date")) and value else value for name, value in body.items()
    }


def _ndjson(rows: Iterator[dict[str, Any]]) -> Response:
    def pieces() -> Iterator[bytes]:
        lines: list[bytes] = []
        for row in rows:
            lines.append(dump(row) + b"\n")
            if len(lines) >= _LINES:
                yield b"".join(lines)
                lines.clear()
        yield b"".join(lines)

    return StreamingResponse(pieces(), media_type="application/x-ndjson")
