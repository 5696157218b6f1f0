"""The contents of a report, as values: read from the warehouse within a limited time. Knows no HTML and no charts.

No record of a person is read: only counts, names that the account gave, and the project's own ledger.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TypeVar
from zoneinfo import ZoneInfo

from psycopg import Connection

from klaviyo_pg.grouping import grouped
from klaviyo_pg.klaviyo.dialects import published_limits
from klaviyo_pg.klaviyo.pace import Limit
from klaviyo_pg.postgres import html_report as queries
from klaviyo_pg.postgres import lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.html_report import (
    Answer,
    Consent,
    Estimated,
    Excluded,
    Freshness,
    LoadedTable,
    PastRun,
    Rejected,
    RequestsOfDay,
    Revenue,
    StoredTable,
    within,
)
from klaviyo_pg.postgres.ledgers import reconciliation
from klaviyo_pg.settings import Settings
from klaviyo_pg.states import RunState
from klaviyo_pg.windows import DAY
from pipeline.coverage import Coverage, coverage_of
from transforms.personal import shown_sentence

DAYS = 30
"""The days of requests and of loaded rows that a report shows."""
REVENUE_DAYS = 90
"""The days of attributed events: some flows are rare."""
MOST = 10
"""The campaigns, and the flows, that a report shows."""
_SECONDS = 4.0  # for one query: with those that grow with people or orders, a report stays under 20 seconds
_MOST_DIFFERENCES = 200
_MOST_REASONS = 50

Row = TypeVar("Row")


@dataclass(frozen=True)
class Difference:
    """A day of a metric on which the counts differ."""

    metric: str
    day: datetime
    source: int | None
    stored: int
    difference: int | None


@dataclass(frozen=True)
class AccountReport:
    """The contents of a report on an account.

    `differing` is the number of days that differ, of which some are listed. Campaigns and flows are those with the most
    revenue in `currency`, the most frequent one; `other_currencies` has the sum of each other one.
    """

    name: str
    runs: Answer[Sequence[PastRun]]
    coverage: Answer[Coverage | None]
    freshness: Answer[Sequence[Freshness]]
    differences: Answer[Sequence[Difference]]
    differing: int
    requests: Answer[Sequence[RequestsOfDay]]
    loaded: Answer[Sequence[LoadedTable]]
    rejected: Answer[int]
    rejects: Answer[Sequence[Rejected]]
    consents: Answer[Estimated[Consent]]
    excluded: Answer[Estimated[Excluded]]
    metric: str | None
    currency: str | None
    other_currencies: Sequence[Revenue]
    campaigns: Answer[Sequence[Revenue]]
    flows: Answer[Sequence[Revenue]]

    @property
    def last_run(self) -> PastRun | None:
        """The run that started last."""
        return self.runs.value[0] if self.runs.value else None

    def not_read_for(self, hours: float) -> int:
        """Return the number of streams that were last read more than `hours` ago, or never."""
        return sum(each.age_hours is None or each.age_hours > hours for each in self.freshness.value)

    @property
    def left_out(self) -> list[str]:
        """The sections without an answer."""
        return [name for name, value in vars(self).items() if isinstance(value, Answer) and value.left_out]


@dataclass(frozen=True)
class Report:
    """The contents of a report: accounts, the tables of all of them, and the endpoints by their limit in a minute.

    Times are shown in `zone`. Days are those of UTC, by which the counts of the source are compared.
    """

    made_at: datetime
    zone: ZoneInfo
    schema: str
    accounts: Sequence[AccountReport]
    tables: Answer[Sequence[StoredTable]]
    limits: Sequence[tuple[int, Sequence[str]]]
    share: float


def read(
    connection: Connection,
    settings: Settings,
    shown: Sequence[tuple[str, Account]],
    now: datetime,
    seconds: float = _SECONDS,
) -> Report:
    """Read what a report shows of these accounts. `seconds` is the longest time for one query."""
    schema = settings.warehouse_schema
    return Report(
        now,
        ZoneInfo(settings.display_timezone),
        schema,
        [_account(name, account, settings, now, seconds) for name, account in shown],
        within(connection, seconds, lambda: queries.stored_tables(connection, schema), []),
        _by_limit(published_limits(settings.klaviyo_dialect)),
        settings.rate_limit_share,
    )


def _account(name: str, account: Account, settings: Settings, now: datetime, seconds: float) -> AccountReport:
    def rows(query: Callable[[Account], Sequence[Row]]) -> Answer[Sequence[Row]]:
        return within(account.connection, seconds, lambda: query(account), [])

    def estimated(query: Callable[[Account], Estimated[Row]]) -> Answer[Estimated[Row]]:
        return within(account.connection, seconds, lambda: query(account), Estimated([]))

    since = now - timedelta(days=DAYS)
    covered = partial(coverage_of, account, name, now.date(), settings.events_kept_since)
    found = rows(_differences)
    metric, revenue = _revenue(account, now - timedelta(days=REVENUE_DAYS), seconds)
    currencies = _currencies(revenue.value)
    main = currencies[0] if currencies else None
    return AccountReport(
        name=name,
        runs=rows(queries.past_runs),
        coverage=within(account.connection, seconds, covered, None),
        freshness=rows(lambda each: queries.freshness(each, name)),
        differences=Answer(found.value[:_MOST_DIFFERENCES], found.left_out),
        differing=len(found.value),
        requests=rows(lambda each: queries.requests_by_day(each, since)),
        loaded=rows(lambda each: queries.loaded_tables(each, since)),
        rejected=within(account.connection, seconds, lambda: queries.rejects(account), 0),
        rejects=rows(lambda each: _reasons(queries.rejected(each))),
        consents=estimated(queries.consents),
        excluded=estimated(queries.excluded),
        metric=metric,
        currency=main.currency if main else None,
        other_currencies=currencies[1:],
        campaigns=_top(revenue, "campaign", main),
        flows=_top(revenue, "flow", main),
    )


def _differences(account: Account) -> list[Difference]:
    """Return the days that differ, the largest differences first."""
    names = {row.id: row.name or row.id for row in lookups.metrics(account)}
    found = [
        Difference(
            names.get(each.metric_id, each.metric_id),
            each.window_start,
            each.source_events,
            each.warehouse_events,
            each.difference,
        )
        for each in reconciliation.differences(account)
    ]
    return sorted(found, key=lambda each: -abs(each.difference or 0))


def _reasons(rows: Sequence[Rejected]) -> list[Rejected]:
    """Return the most frequent reasons, without what they quote of a record."""
    records: Counter[tuple[str, str]] = Counter()
    times: dict[tuple[str, str], list[datetime]] = {}
    for row in rows:
        key = row.table_name, shown_sentence(row.reason)
        records[key] += row.records
        times.setdefault(key, []).extend((row.first_at, row.last_at))
    return [
        Rejected(*key, number, min(times[key]), max(times[key])) for key, number in records.most_common(_MOST_REASONS)
    ]


def _revenue(account: Account, since: datetime, seconds: float) -> tuple[str | None, Answer[Sequence[Revenue]]]:
    """Return the names of the metrics for revenue, and what is attributed by them."""
    nothing: list[tuple[str, str]] = []
    metrics = within(account.connection, seconds, lambda: queries.revenue_metrics(account), nothing)
    if not metrics.value:
        return None, Answer([], metrics.left_out)
    keys, names = zip(*metrics.value, strict=True)
    return " and ".join(names), within(account.connection, seconds, lambda: queries.revenue(account, keys, since), [])


def _currencies(rows: Sequence[Revenue]) -> list[Revenue]:
    """Return the sum of each currency, the one with the most conversions first."""
    sums: dict[str | None, Revenue] = {}
    for row in rows:
        before = sums.get(row.currency, Revenue("", "", row.currency, 0, Decimal(0)))
        conversions, revenue = before.conversions + row.conversions, (before.revenue or 0) + (row.revenue or Decimal(0))
        sums[row.currency] = before._replace(conversions=conversions, revenue=revenue)
    return sorted(sums.values(), key=lambda each: -each.conversions)


def _top(revenue: Answer[Sequence[Revenue]], kind: str, main: Revenue | None) -> Answer[Sequence[Revenue]]:
    rows = [each for each in revenue.value if main and (each.kind, each.currency) == (kind, main.currency)]
    return Answer(rows[:MOST], revenue.left_out)


def _by_limit(limits: Mapping[str, Limit]) -> list[tuple[int, Sequence[str]]]:
    """Return the endpoints by their limit in a minute, the largest first."""
    endpoints = grouped((limit.steady, name) for name, limit in sorted(limits.items()))
    return sorted(endpoints.items(), reverse=True)


def needs_attention(run: PastRun) -> bool:
    """Return whether a run ended in another state than complete, or has not ended for a day."""
    if run.state == RunState.RUNNING:
        return datetime.now(UTC) - run.started_at > DAY
    return run.state != RunState.COMPLETE
