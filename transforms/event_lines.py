"""Events as lines for COPY, which takes a third of the time of frames. Knows neither people nor protection.

Only usual events are made into lines. For any others the frames of `transforms.events` are the way, and their rows are
the same.
"""

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

import polars as pl

from klaviyo_pg.catalogue import loads
from klaviyo_pg.catalogue.events import EVENT_TABLES, channel
from klaviyo_pg.rows import KEY_LENGTH, TIMES, EventPage, Events, Lines
from transforms.events import (
    NUMBER,
    Metrics,
    Placeholders,
    flow_campaigns,
    implies_change,
    placeholders,
    subscription_changes,
)
from transforms.keys import key_prefix, md5

try:
    from _md5 import md5 as _md5  # type: ignore[import-not-found]  # OpenSSL's takes three times as long
except ImportError:  # an interpreter without it
    _md5 = hashlib.md5

_COLUMNS = (
    *("key", "id", "campaign_key", "automation_key", "member_key", "list_key", "email", "event_at", "metric_key"),
    *("event_name", "value", "value_currency", "properties", "extracted_at"),
    *("is_machine_open", "is_bot_click", "variation", "email_domain", "channel"),
)
_NOTHING = b""
_FLAGS = {None: b"", True: b"true", False: b"false"}
_SECONDS = tuple(b"%02d+00:00" % second for second in range(60))
_is_number = re.compile(NUMBER, re.ASCII).fullmatch
_SPECIAL = "\0\t\n\r\x01"  # NUL is removed; COPY takes the others only if they are quoted
_SPECIAL_BYTES = tuple(each.encode() for each in _SPECIAL)
_NUL_ESCAPE = b"\\u0000"

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # UTC, which the text of each time says
_SEND = {"at": pl.Int64(), **dict.fromkeys(("flow", "message", "campaign_name", "subject"), pl.String())}
_CHANGE = {
    "id": pl.String(),
    "at": pl.Int64(),
    **dict.fromkeys(("profile_id", "list_name", "event_name", "destination"), pl.String()),
}
_NO_CAMPAIGNS = pl.DataFrame(schema=loads.FLOW_CAMPAIGNS.schema)
_NO_CHANGES = pl.DataFrame(schema=loads.SUBSCRIPTION_CHANGES.schema)

assert all(tuple(loads.EVENTS[table.name].schema) == _COLUMNS for table in EVENT_TABLES)


class _Unusual(Exception):
    """A value has to be changed."""


class EventLines(NamedTuple):
    """The lines for the loads of the event tables, by table, and the frames of what events imply."""

    tables: Mapping[str, Lines]
    flow_campaigns: pl.DataFrame
    subscription_changes: pl.DataFrame
    placeholders: Placeholders


def event_lines(pages: Sequence[EventPage], metrics: Metrics, integration_id: str) -> EventLines | None:
    """Split the events of pages by table. Returns None if they are not usual.

    They are not if two have the same ID, if one has no metric, or if a value would have to be changed or quoted.
    """
    ids = {each for page in pages for each in page.events.id}
    metric_ids = {each for page in pages for each in page.events.metric_id}
    if len(ids) < sum(len(page.events) for page in pages) or "" in ids or not all(metric_ids):
        return None
    maker = _Maker(metrics, integration_id)
    try:
        made = [line for page in pages for line in maker.lines(page.events, page.read_at)]
    except (_Unusual, UnicodeEncodeError, OverflowError):  # half of a surrogate pair, or a time of no year
        return None
    tables = _by_table(made, pages, maker)
    sent = {each for page in pages for each in zip(page.events.message, page.events.flow, strict=True)}
    return EventLines(
        tables,
        _flow_campaigns(pages, integration_id),
        _subscription_changes(pages, maker),
        placeholders(sent, max((page.read_at for page in pages), default=_EPOCH), integration_id),
    )


def _by_table(lines: list[bytes], pages: Sequence[EventPage], maker: "_Maker") -> dict[str, Lines]:
    """Return the lines of each table in the order of time, in which other transactions write them, too."""
    times = [at for page in pages for at in page.events.at]
    order = sorted(range(len(times)), key=times.__getitem__)
    metric_ids = [each or "" for page in pages for each in page.events.metric_id]
    names = sorted({maker.destination(each) for each in set(metric_ids)})
    if len(names) == 1:
        places = {names[0]: order}
    else:
        places = {name: [] for name in names}
        for at in order:
            places[maker.destination(metric_ids[at])].append(at)
    return {
        name: _joined([lines[at] for at in each], [times[at] for at in each], [metric_ids[at] for at in each], maker)
        for name, each in places.items()
    }


def _joined(lines: Sequence[bytes], times: Sequence[int], metric_ids: Sequence[str], maker: "_Maker") -> Lines:
    """Join lines that are in the order of time."""
    last = dict(zip(metric_ids, times, strict=True))
    first = dict(zip(reversed(metric_ids), reversed(times), strict=True))
    spans = {maker.metric_key(each).decode(): (first[each], last[each]) for each in last}
    keys = b"".join([line[:KEY_LENGTH] for line in lines])
    return Lines([b"".join(lines)], keys, array(TIMES, times).tobytes(), spans)


def _check(texts: Iterable[str]) -> None:
    """Raise _Unusual for a text that would have to be changed or quoted."""
    joined = "".join(texts)
    if any(each in joined for each in _SPECIAL):
        raise _Unusual


def _check_documents(documents: Iterable[bytes]) -> None:
    joined = b"".join(documents)
    if any(each in joined for each in _SPECIAL_BYTES) or (b"\\" in joined and _NUL_ESCAPE in joined):
        raise _Unusual


class _Maker:
    """Makes lines. What many events have in common is made once."""

    def __init__(self, metrics: Metrics, integration_id: str) -> None:
        self._metrics = metrics
        self._prefix = key_prefix(integration_id)
        self._minute = cache(_minute)
        self._message, self._value, self._marks = cache(_of_message), cache(_of_value), cache(self._of_marks)
        self._metric = cache(self._of_metric)
        self.destination = cache(self._destination)

    def lines(self, events: Events, read_at: datetime) -> list[bytes]:
        """Return the line of each event. Raises _Unusual if one has a value that would have to be changed or quoted."""
        _check(events.id)
        _check(filter(None, events.email))
        _check_documents(events.properties)
        extracted_at = read_at.astimezone(UTC).isoformat(" ", "microseconds").encode()
        prefix, minute = self._prefix, self._minute
        messages = map(self._message, events.message, events.flow)
        metrics = map(self._metric, events.metric_id)
        people = map(_of_person, events.profile_id, events.email)
        values = map(self._value, events.value, events.value_currency)
        flags = events.is_machine_open, events.is_bot_click
        marks = map(self._marks, *flags, events.variation, _domains(events), events.metric_id)
        names = [each.encode() for each in events.id]
        columns = zip(names, messages, people, events.at, metrics, values, events.properties, marks, strict=True)
        return [
            b"\t".join(
                (
                    _md5(prefix + name).hexdigest().encode(),
                    name,
                    message,
                    person,
                    minute(at // 60) + _SECONDS[at % 60],
                    metric,
                    value,
                    properties,
                    extracted_at,
                    mark,
                )
            )
            for name, message, person, at, metric, value, properties, mark in columns
        ]

    def changes(self, events: Events) -> Iterator[tuple[object, ...]]:
        """Yield the events that say that someone has subscribed or unsubscribed, with the columns of _CHANGE."""
        names, destination = self._metrics.names, self.destination
        implied = {each: implies_change(names.get(each), destination(each)) for each in set(events.metric_id) if each}
        if any(implied.values()):
            columns = zip(events.id, events.at, events.profile_id, events.list_name, events.metric_id, strict=True)
            for *values, list_name, metric_id in columns:
                if metric_id and implied[metric_id]:
                    yield *values, list_name or None, names.get(metric_id), destination(metric_id)

    def _of_metric(self, metric_id: str) -> bytes:
        name = self._metrics.names.get(metric_id) or ""
        _check([name])
        return b"%b\t%b" % (self.metric_key(metric_id), name.encode())

    def _of_marks(
        self,
        is_machine_open: bool | None,
        is_bot_click: bool | None,
        variation: str | None,
        domain: str | None,
        metric_id: str,
    ) -> bytes:
        texts = (variation or "", (domain or "").lower(), channel(self._metrics.names.get(metric_id)) or "")
        _check(texts)
        return b"%b\t%b\t%b\n" % (_FLAGS[is_machine_open], _FLAGS[is_bot_click], "\t".join(texts).encode())

    def metric_key(self, metric_id: str) -> bytes:
        """Return the key of a metric."""
        key: bytes = _md5(self._prefix + metric_id.encode()).hexdigest().encode()
        return key

    def _destination(self, metric_id: str) -> str:
        return self._metrics.destinations.get(metric_id, loads.EVENTS["events"].table.name)


def _minute(minute: int) -> bytes:
    return (_EPOCH + timedelta(minutes=minute)).isoformat(" ")[:17].encode()


def _key(text: str | None) -> bytes:
    return _md5(text.encode()).hexdigest().encode() if text else _NOTHING


def _of_message(message: str | None, flow: str | None) -> bytes:
    return b"%b\t%b" % (_key(message), _key(flow))


def _of_person(profile_id: str | None, email: str | None) -> bytes:
    return b"%b\t\t%b" % (_key(profile_id), (email or "").encode())


def _domains(events: Events) -> list[str | None]:
    pairs = zip(events.email, events.email_domain, strict=True)
    return [(email[email.rindex("@") + 1 :] if email and "@" in email else None) or said for email, said in pairs]


def _of_value(value: str | None, currency: str | None) -> bytes:
    digits = value or ""
    _check([digits, currency or ""])
    if digits != digits.strip():
        raise _Unusual
    return b"%b\t%b" % (digits.encode() if _is_number(digits) else _NOTHING, (currency or "").encode())


def _flow_campaigns(pages: Sequence[EventPage], integration_id: str) -> pl.DataFrame:
    """Return the messages of flows. Of events that agree in all but the time, the first and the latest are enough."""
    sends: dict[tuple[str | None, ...], tuple[int, int, int]] = {}  # the earliest and the latest time, and its place
    for place, (at, *names) in enumerate(send for page in pages for send in _sends(page.events)):
        sent = tuple(names)
        first, last, last_place = sends.get(sent, (at, at, place))
        sends[sent] = (min(first, at), at, place) if at >= last else (min(first, at), last, last_place)
    if not sends:
        return _NO_CAMPAIGNS
    in_order = sorted((place, first, last, *sent) for sent, (first, last, place) in sends.items())
    rows = [(at, *sent) for _, first, last, *sent in in_order for at in (first, last)]
    frame = pl.DataFrame(rows, _SEND, orient="row").with_columns(
        event_at=pl.from_epoch("at", "s").dt.replace_time_zone("UTC").dt.cast_time_unit("us"),
        campaign_key=md5(pl.col("message")),
        automation_key=md5(pl.col("flow")),
    )
    return flow_campaigns(frame.lazy(), integration_id).collect()


def _sends(events: Events) -> Iterator[tuple[int, str, str, str | None, str | None]]:
    if not any(events.flow):
        return
    columns = zip(events.at, events.flow, events.message, events.campaign_name, events.subject, strict=True)
    for at, flow, message, name, subject in columns:
        if flow and message:
            yield at, flow, message, name or None, subject or None


def _subscription_changes(pages: Sequence[EventPage], maker: "_Maker") -> pl.DataFrame:
    rows = [change for page in pages for change in maker.changes(page.events)]
    if not rows:
        return _NO_CHANGES
    frame = pl.DataFrame(rows, _CHANGE, orient="row").with_columns(
        event_at=pl.from_epoch("at", "s").dt.replace_time_zone("UTC").dt.cast_time_unit("us")
    )
    return subscription_changes(frame.lazy()).collect()
