"""Reports on campaigns and flows: statistics of a time frame, as a whole or by day, grouped by message."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from starlette.requests import Request

from sandbox.account import Account
from sandbox.account.ids import uuid
from sandbox.account.reports import Figures, Performance, Sent, performance, statistics
from sandbox.api.endpoint import Context
from sandbox.api.errors import ApiError
from sandbox.current import resources
from sandbox.current.documents import base_url
from sandbox.current.query import decode_cursor, encode_cursor
from sandbox.encoding import dump

_ROWS_PER_PAGE = 100
_LONGEST, _LONGEST_BY_DAY = 366, 60  # days of a time frame
_KEYS = {"last_7_days": 7, "last_30_days": 30, "last_90_days": 90, "last_365_days": 365}
_GROUPS = ("send_channel", "variation")
_ZONE = ZoneInfo(resources.TIMEZONE)
_ALL_STATISTICS = frozenset(statistics(Figures()))


class _Asked(NamedTuple):
    """A validated request. `metric` is the number of the conversion metric, `days` those of the time frame."""

    metric: int
    days: Sequence[date]
    statistics: Sequence[str]
    group_by: Sequence[str]


class Reports:
    """The endpoints of reports. What is added up stays in memory until the account changes."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._added_up: tuple[Any, Performance] | None = None

    async def campaign_values(self, context: Context, request: Request) -> bytes:
        asked = await self._read(context, request, "campaign")
        return self._page(request, "campaign-values-report", self._rows(asked, "campaign"))

    async def flow_values(self, context: Context, request: Request) -> bytes:
        asked = await self._read(context, request, "flow")
        return self._page(request, "flow-values-report", self._rows(asked, "flow"))

    async def flow_series(self, context: Context, request: Request) -> bytes:
        asked = await self._read(context, request, "flow", by_day=True)
        dates = [datetime(day.year, day.month, day.day, tzinfo=_ZONE).isoformat() for day in asked.days]
        rows = self._rows(asked, "flow", by_day=True)
        return self._page(request, "flow-series-report", rows, {"date_times": dates})

    async def _read(self, context: Context, request: Request, kind: str, by_day: bool = False) -> _Asked:
        if self._account.orders is not None:
            raise ApiError(404, "not_found", "This account is too large to be added up.")
        attributes = _attributes(await request.body(), by_day)
        metric_id, group_by = attributes["conversion_metric_id"], attributes.get("group_by")
        if metric_id not in self._account.metrics:
            raise _invalid(f"A metric with id {metric_id} does not exist.", "conversion_metric_id")
        ids = (f"{kind}_id", f"{kind}_message_id")
        group_by = [*ids, "send_channel"] if group_by is None else group_by
        if not set(ids) <= set(group_by) <= {*ids, *_GROUPS}:
            raise _invalid(f"This account groups by {', '.join((*ids, *_GROUPS))} only, and needs the first two.", "")
        days = _days(attributes["timeframe"], datetime.fromtimestamp(context.now(), _ZONE).date())
        if not 0 < len(days) <= (_LONGEST_BY_DAY if by_day else _LONGEST):
            raise _invalid("The time frame is too long, or ends before it begins.", "timeframe")
        return _Asked(self._account.metrics[metric_id].number, days, attributes["statistics"], group_by)

    def _performance(self, metric: int) -> Performance:
        account = self._account
        state = metric, account.generation, len(account.timeline), account.attributions.replaced
        if self._added_up is None or self._added_up[0] != state:
            self._added_up = state, performance(account, metric, _ZONE)
        return self._added_up[1]

    def _rows(self, asked: _Asked, kind: str, by_day: bool = False) -> list[dict[str, Any]]:
        found = self._performance(asked.metric)
        grouped: dict[tuple[str | None, ...], dict[Sent, Figures]] = defaultdict(dict)
        for sent, figures in (found.campaigns if kind == "campaign" else found.flows).items():
            if asked.days[0] <= sent.day <= asked.days[-1]:
                grouped[_group(sent, kind, asked.group_by)][sent] = figures
        return [
            {
                "groupings": dict(zip(asked.group_by, group, strict=True)),
                "statistics": _by_day(asked, of_group) if by_day else _values(asked, of_group.values()),
            }
            for group, of_group in sorted(grouped.items(), key=lambda each: [text or "" for text in each[0]])
        ]

    def _page(
        self, request: Request, kind: str, rows: Sequence[Mapping[str, Any]], more: Mapping[str, Any] | None = None
    ) -> bytes:
        cursor = request.query_params.get("page_cursor")
        begin = int(decode_cursor(cursor)[0]) if cursor else 0
        end = begin + _ROWS_PER_PAGE
        url = f"{base_url(request)}{request.url.path}"
        following = f"{url}?page_cursor={encode_cursor([end, 0])}" if end < len(rows) else None
        data = {"type": kind, "id": uuid(kind, begin), "attributes": {"results": rows[begin:end], **(more or {})}}
        return dump({"data": data, "links": {"self": str(request.url), "next": following, "prev": None}})


def _attributes(body: bytes, by_day: bool) -> Mapping[str, Any]:
    try:
        attributes = dict(json.loads(body)["data"]["attributes"])
        chosen, _, _ = attributes["statistics"], attributes["timeframe"], attributes["conversion_metric_id"]
    except (KeyError, TypeError, ValueError):
        raise _invalid("statistics, timeframe and conversion_metric_id are required.", "") from None
    if not chosen or not set(chosen) <= _ALL_STATISTICS:
        raise _invalid(f"Statistics must be among {', '.join(sorted(_ALL_STATISTICS))}.", "statistics")
    if by_day and attributes.get("interval") != "daily":
        raise _invalid("This account has the interval daily only.", "interval")
    if attributes.get("filter"):
        raise _invalid("Filters are not available.", "filter")
    return attributes


def _invalid(detail: str, name: str) -> ApiError:
    return ApiError(400, "invalid", detail, {"pointer": f"/data/attributes/{name}"})


def _days(timeframe: Mapping[str, Any], today: date) -> list[date]:
    """Return the days of a time frame, which includes the last one. Offsets are ignored, as Klaviyo does."""
    try:
        if "key" in timeframe:
            first, last = today - timedelta(days=_KEYS[timeframe["key"]]), today - timedelta(days=1)
        else:
            first, last = (datetime.fromisoformat(timeframe[name]).date() for name in ("start", "end"))
    except (KeyError, TypeError, ValueError):
        raise _invalid("The time frame needs a key, or a start and an end.", "timeframe") from None
    if last > today:
        raise _invalid("The time frame may not end in the future.", "timeframe")
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _group(sent: Sent, kind: str, group_by: Sequence[str]) -> tuple[str | None, ...]:
    values = {
        f"{kind}_id": sent.owner,
        f"{kind}_message_id": sent.message,
        "send_channel": sent.channel,
        "variation": sent.variation,
    }
    return tuple(values[name] for name in group_by)


def _values(asked: _Asked, figures: Iterable[Figures]) -> dict[str, float]:
    found = statistics(Figures.total(figures))
    return {name: found[name] for name in asked.statistics}


def _by_day(asked: _Asked, of_group: Mapping[Sent, Figures]) -> dict[str, list[float]]:
    figures: dict[date, list[Figures]] = defaultdict(list)
    for sent, each in of_group.items():
        figures[sent.day].append(each)
    days = [_values(asked, figures[day]) for day in asked.days]
    return {name: [day[name] for day in days] for name in asked.statistics}
