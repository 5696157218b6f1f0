"""What a run has to read: streams, cut into chunks. Values in, values out."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from klaviyo_pg.catalogue import SPECIFIED, events
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.windows import Window, open_windows

_SHORTEST_WINDOW = timedelta(days=1)
_MOST_WINDOWS = 16  # of one stream: enough to read side by side, few enough for Prefect's server
_ONE_METRIC_WINDOW = timedelta(days=30)
_PROFILE_OVERLAP = timedelta(days=1)  # a profile's `updated` is the API's own clock, so little can come late
_EVERYTHING = Window(None, None)
_NO_LOOKBACKS: Mapping[str, timedelta] = MappingProxyType({})

DIMENSIONS = ("metrics", "lists", "segments", "campaigns", "flows", "exclusions")
"""Streams that are always read completely. Metrics and lists come first: others are planned from them."""

_TABLES_OF_STREAM = {
    "metrics": {"metrics"},
    "lists": {"lists"},
    "segments": {"lists"},
    "campaigns": {"campaigns", "campaign_lists"},
    "flows": {"automations"},
    "exclusions": {"stg_member_exclusions", "member_exclusions"},
    "events": {table.name for table in events.EVENT_TABLES} | {"campaigns", "members", "member_attributes"}
    | {"member_lists"},
    "profiles": {"members", "member_attributes", "member_lists"},
    "list_members": {"stg_member_lists", "member_lists"},
}  # fmt: skip
_NEEDED = frozenset({"metrics", "lists"})


class Chunk(NamedTuple):
    """What one task reads: a window of a stream, of one metric or list where `subject` names it.

    When the last chunk of its stream is loaded, the streams in `marks` have been read from `start` on.
    """

    stream: str
    window: Window = _EVERYTHING
    subject: str | None = None
    start: datetime | None = None
    marks: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.stream.partition("/")[0]

    @property
    def part(self) -> str:
        return str(self.window)

    def __str__(self) -> str:
        return self.stream if self.window == _EVERYTHING else f"{self.stream} {self.window}"


def streams(tables: Collection[str]) -> frozenset[str]:
    """The kinds of stream that fill these tables; all of them where none is named. Raises BadSettings."""
    known = {table.name for table in SPECIFIED}
    for name in tables:
        if name not in known:
            raise BadSettings(f"There is no table {name}; there are {', '.join(sorted(known))}.")
    if not tables:
        return frozenset(_TABLES_OF_STREAM)
    return _NEEDED | {stream for stream, fills in _TABLES_OF_STREAM.items() if fills & set(tables)}


class Horizon(NamedTuple):
    """From when to read: `as_of` is the present, `since` what the user asked for."""

    as_of: datetime
    lookback: timedelta
    first_sync: timedelta
    since: datetime | None = None

    def start(self, watermark: datetime | None) -> datetime:
        """Where to begin with events of a metric that has been read up to `watermark`."""
        if self.since is not None:
            return self.since
        return self.as_of - self.first_sync if watermark is None else watermark - self.lookback

    def leaves_no_gap(self, watermark: datetime | None) -> bool:
        """Whether all is read that would be read without `since`, so that the watermark may move."""
        return self.start(watermark) <= (self.as_of - self.first_sync if watermark is None else watermark)


def event_chunks(
    metric_ids: Iterable[str],
    watermarks: Mapping[str, datetime],
    horizon: Horizon,
    all_at_once: bool,
    lookbacks: Mapping[str, timedelta] = _NO_LOOKBACKS,
) -> Iterator[Chunk]:
    """Read events from where each metric stands; `lookbacks` are those of metrics that have their own.

    With `all_at_once` the metrics that stand at the same time, usually all, are one stream that is read without naming
    a metric: fewer requests, and events of metrics that nobody lists are in it. The others are a stream each.
    """
    starts = {
        each: horizon._replace(lookback=lookbacks.get(each, horizon.lookback)).start(watermarks.get(f"events/{each}"))
        for each in metric_ids
    }
    together: list[str] = []
    if all_at_once and starts:
        common, _ = Counter(starts.values()).most_common(1)[0]
        together = [each for each, start in starts.items() if start == common]
        marks = tuple(s for each in together if horizon.leaves_no_gap(watermarks.get(s := f"events/{each}")))
        longest = max(_SHORTEST_WINDOW, (horizon.as_of - common) / _MOST_WINDOWS)
        for window in open_windows(common, horizon.as_of, longest):
            yield Chunk("events", window, None, common, marks)
    for each in sorted(starts.keys() - set(together)):
        stream = f"events/{each}"
        for window in open_windows(starts[each], horizon.as_of, _ONE_METRIC_WINDOW):
            marks = (stream,) if horizon.leaves_no_gap(watermarks.get(stream)) else ()
            yield Chunk(stream, window, each, starts[each], marks)


def profile_chunks(watermarks: Mapping[str, datetime]) -> Iterator[Chunk]:
    """People whose profile changed since they were last read; at first all of them."""
    watermark = watermarks.get("profiles")
    start = None if watermark is None else watermark - _PROFILE_OVERLAP
    yield Chunk("profiles", Window(start, None), None, start, ("profiles",))


def membership_chunks(
    list_ids: Sequence[str],
    watermarks: Mapping[str, datetime],
    lookback: timedelta,
    as_of: datetime,
    sweep_every: timedelta,
) -> Iterator[Chunk]:
    """People who joined each list since it was last read; all of its members at first, and when a sweep is due.

    A sweep is a window without bounds: only one that has read all members can tell who is no longer there.
    """
    for list_id in list_ids:
        stream = f"list_members/{list_id}"
        watermark = watermarks.get(stream)
        due = watermark is None or _is_due(watermarks.get(sweep_stream(list_id)), as_of, sweep_every)
        start = None if due or watermark is None else watermark - lookback
        yield Chunk(stream, Window(start, None), list_id, start, (stream,))


def sweep_stream(list_id: str) -> str:
    """The name under which watermarks tell when all members of a list were last read."""
    return f"membership_sweep/{list_id}"


def _is_due(last: datetime | None, as_of: datetime, every: timedelta) -> bool:
    """Whether it is time again. A tenth early: runs of one time of day differ by minutes."""
    return bool(every) and (last is None or as_of - last > every * 0.9)
