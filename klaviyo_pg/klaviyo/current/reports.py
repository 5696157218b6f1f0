"""Reports on campaigns and flows in the current dialect: requests, paging, and results as rows.

The API documents these answers, but not what it leaves out of them. So what is missing is null, and only a result that
belongs to no campaign or flow is rejected. Requests are POSTs that change nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import zip_longest
from math import isfinite
from typing import Any, NamedTuple

import msgspec

from klaviyo_pg.errors import Garbled, QuotaUsedUp, Throttled
from klaviyo_pg.klaviyo.client import Client, Endpoint
from klaviyo_pg.klaviyo.collections import refuse_circle
from klaviyo_pg.klaviyo.documents import read_repaired
from klaviyo_pg.klaviyo.lenient import elements, identifier, member
from klaviyo_pg.klaviyo.pace import Limit
from klaviyo_pg.rows import Page, Reject, Report
from klaviyo_pg.windows import Window

_LIMIT = Limit(1, 2)  # and 225 in a day
CAMPAIGNS = Endpoint("api/campaign-values-reports", "campaigns:read", _LIMIT, name="campaign reports")
FLOWS = Endpoint("api/flow-series-reports", "flows:read", _LIMIT, name="flow reports")
STATISTICS = (
    "recipients",
    "delivered",
    "bounced",
    "failed",
    "bounced_or_failed",
    "opens",
    "opens_unique",
    "clicks",
    "clicks_unique",
    "unsubscribes",
    "unsubscribe_uniques",
    "spam_complaints",
    "conversions",
    "conversion_uniques",
    "conversion_value",
    "average_order_value",
    "revenue_per_recipient",
    "delivery_rate",
    "bounce_rate",
    "failed_rate",
    "bounced_or_failed_rate",
    "open_rate",
    "click_rate",
    "click_to_open_rate",
    "conversion_rate",
    "unsubscribe_rate",
    "spam_complaint_rate",
    "message_segment_count_sum",
    "text_message_credit_usage_amount",
    "text_message_spend",
    "text_message_roi",
)
"""All statistics that reports have."""
_LARGEST = 2**63
_SECOND = timedelta(seconds=1)
_decode = msgspec.json.Decoder(dict[str, Any], float_hook=float).decode  # 1e999 is infinite


class _Result(NamedTuple):
    """A result: its groupings and its statistics, which are arrays in a series."""

    groupings: Mapping[str, Any]
    statistics: Mapping[str, Any]


class _Answer(NamedTuple):
    """A page of a report, decoded. `results` is None if it has no such list."""

    results: list[Any] | None
    dates: list[Any]
    next: str | None
    body: bytes


def of_campaigns(client: Client, window: Window, metric_id: str) -> Iterator[Page[Report]]:
    """Read a day of the report on campaigns."""
    body = _body("campaign", "values", window, metric_id)
    for answer, rejects, read_at in _pages(client, CAMPAIGNS, body):
        results = _results(answer, "campaign", rejects)
        reports = [_report(window.start.date(), "campaign", metric_id, *result) for result in results]
        yield Page(reports, rejects, read_at)


def of_flows(client: Client, window: Window, metric_id: str) -> Iterator[Page[Report]]:
    """Read the days of the report on flows."""
    body = _body("flow", "series", window, metric_id, interval="daily")
    asked = window.days
    for answer, rejects, read_at in _pages(client, FLOWS, body):
        days = _days(answer.dates, window)
        results = _results(answer, "flow", rejects)
        rejects += [_undated(each) for each in results if any(day is None for day, _ in _by_day(days, each.statistics))]
        reports = [
            _report(day, "flow", metric_id, groupings, values)
            for groupings, statistics in results
            for day, values in _by_day(days, statistics)
            if day is not None and day in asked
        ]
        yield Page(reports, rejects, read_at)


def _body(kind: str, form: str, window: Window, metric_id: str, **more: str) -> dict[str, Any]:
    """Return the body of a request. The API ignores offsets, and includes the last day."""
    attributes = {
        "statistics": STATISTICS,
        "timeframe": {"start": _moment(window.start), "end": _moment(window.end - _SECOND)},
        "conversion_metric_id": metric_id,
        "group_by": [f"{kind}_id", f"{kind}_message_id", "send_channel", "variation"],
        **more,
    }
    return {"data": {"type": f"{kind}-{form}-report", "attributes": attributes}}


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S+00:00")


def _pages(
    client: Client, endpoint: Endpoint, body: Mapping[str, Any]
) -> Iterator[tuple[_Answer, list[Reject], datetime]]:
    """Read all pages of a report. Raises QuotaUsedUp if the API says so, and BadAnswer for a circle."""
    link, followed = "", set[str]()
    while True:
        refuse_circle(link, followed, endpoint.path)
        followed.add(link)
        read_at = datetime.now(UTC)
        try:
            answer, rejects = client.post(endpoint, body, _read, link or None)
        except Throttled as error:
            if not error.is_limit:
                raise
            raise _quota(endpoint, error) from None
        yield answer, rejects, read_at
        if answer.next is None:
            return
        link = answer.next


def _quota(endpoint: Endpoint, error: Throttled) -> QuotaUsedUp:
    wait = "" if error.retry_after is None else f" for another {timedelta(seconds=round(error.retry_after))}"
    return QuotaUsedUp(f"Klaviyo's quota for {endpoint.name} is used up{wait}. The next runs read the remaining days.")


def _read(body: bytes) -> tuple[_Answer, list[Reject]]:
    """Decode a page. Raises Garbled if it is not JSON, also after repairing texts that cannot be stored."""
    rejects: list[Reject] = []
    try:
        document = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        documents, rejects = read_repaired(body, _decode, error)
        if not documents:
            raise Garbled(f"The response is not a report of Klaviyo's API ({error}). Check KLAVIYO_BASE_URL.") from None
        [document] = documents
    attributes, following = member(document, "data", "attributes"), member(document, "links", "next")
    results = member(attributes, "results")
    answer = _Answer(
        results if isinstance(results, list) else None,
        elements(member(attributes, "date_times")),
        following if isinstance(following, str) and following else None,
        body,
    )
    return answer, rejects


def _results(answer: _Answer, kind: str, rejects: list[Reject]) -> list[_Result]:
    """Return the results that belong to a campaign or a flow, and add the others to the rejects."""
    if answer.results is None:
        rejects.append(Reject(answer.body.decode("utf-8", "replace"), "The report has no results."))
    found = []
    for result in answer.results or ():
        groupings, statistics = member(result, "groupings"), member(result, "statistics")
        if identifier(member(groupings, f"{kind}_id")) is None:
            text = msgspec.json.encode(result).decode()
            rejects.append(Reject(text, f"The result has no {kind}_id."))
        else:
            found.append(_Result(groupings, statistics if isinstance(statistics, dict) else {}))
    return found


def _report(
    day: date, kind: str, metric_id: str, groupings: Mapping[str, Any], statistics: Mapping[str, Any]
) -> Report:
    owner = identifier(groupings.get(f"{kind}_id"))
    assert owner is not None, "results without one are rejected"
    return Report(
        day,
        owner,
        identifier(groupings.get(f"{kind}_message_id")),
        identifier(groupings.get("send_channel")),
        identifier(groupings.get("variation")),
        metric_id,
        {name: _number(statistics.get(name)) for name in STATISTICS},
    )


def _number(value: Any) -> int | float | None:
    """Return a number that Postgres can store; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isfinite(value) and abs(value) < _LARGEST else None


def _days(dates: Sequence[Any], window: Window) -> list[date | None]:
    """Return the day of each value: that of its place where all days have one, else that of its time."""
    days = window.days
    return list(days) if len(dates) in (0, len(days)) else [_date(each) for each in dates]


def _date(value: Any) -> date | None:
    try:
        return datetime.fromisoformat(value).date()
    except (TypeError, ValueError):
        return None


def _by_day(days: Sequence[date | None], statistics: Mapping[str, Any]) -> Iterator[tuple[date | None, dict[str, Any]]]:
    """Yield the statistics of each day that has any. Days of which all are zero are left out.

    The day is None where it is unknown.
    """
    series = {name: elements(values) for name, values in statistics.items()}
    longest = max(map(len, series.values()), default=0)
    for number, day in zip_longest(range(longest), days[:longest]):
        values = {name: each[number] for name, each in series.items() if number < len(each)}
        if any(_number(value) for value in values.values()):
            yield day, values


def _undated(result: _Result) -> Reject:
    return Reject(msgspec.json.encode(result._asdict()).decode(), "The result has values of which the day is unknown.")
