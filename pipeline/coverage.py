"""The coverage of an account: how complete each metric is, by day, as values and text. `coverage_picture` draws it."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from itertools import groupby

from klaviyo_pg.grouping import grouped
from klaviyo_pg.postgres import lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger, compared_history, reconciliation
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.postgres.ledgers.compared_history import ComparedHistory
from klaviyo_pg.postgres.ledgers.reconciliation import Comparison
from klaviyo_pg.states import ChunkState, CountState
from klaviyo_pg.windows import DAY, Window, merged, midnight
from pipeline.job import Job

_ALL_TIME = Window(datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC))
_MAX_LABEL = 42  # characters
_MAX_STRIP = 60  # characters of a line of text


class Covered(Enum):
    """The state of a metric's day. Several days count as the first of these that applies to any of them."""

    DIFFERS = "differs"
    MISSING = "not loaded"
    LOADED = "loaded, not compared"
    COMPLETE = "complete"
    NOTHING = "no events"


_SIGNS: Mapping[Covered, str] = {
    Covered.COMPLETE: "█",
    Covered.LOADED: "▒",
    Covered.NOTHING: "·",
    Covered.DIFFERS: "!",
    Covered.MISSING: "○",
}
_WORST_FIRST = tuple(Covered)


@dataclass(frozen=True)
class Coverage:
    """The metrics of an account by day: for each metric, by name, one value for each day from `first` on."""

    account: str
    first: date
    days: Mapping[str, Sequence[Covered]]

    @property
    def last(self) -> date:
        """The last day."""
        return self.first + (max(map(len, self.days.values()), default=1) - 1) * DAY


def coverage_of(account: Account, name: str, today: date, since: datetime = _ALL_TIME.start) -> Coverage:
    """Return the coverage of an account from `since` up to today, from the ledger."""
    return coverage(
        name,
        {row.id: row.name or row.id for row in lookups.metrics(account)},
        reconciliation.loaded_windows(account, since),
        reconciliation.comparisons(account, Window(since, _ALL_TIME.end)).values(),
        backfill_ledger.chunks(account),
        today,
        compared_history.compared(account),
    )


def publish(job: Job) -> None:
    """Publish the coverage of the job's account as a table in Markdown."""
    name, since = job.run.settings.klaviyo_integration, job.run.settings.events_kept_since
    with job.session.progress.stage("Coverage", "metrics"):
        job.session.progress.expect("coverage", "coverage", None)
        covered = job.transact(lambda account: coverage_of(account, name, job.run.as_of.date(), since))
        job.publisher.markdown("coverage", markdown(covered), f"Coverage of {name}")
        job.session.progress.complete("coverage", len(covered.days))


def coverage(
    account: str,
    names: Mapping[str, str],
    loaded: Mapping[str, Sequence[Window]],
    compared: Iterable[Comparison],
    chunks: Iterable[BackfillChunk],
    today: date,
    history: Iterable[ComparedHistory] = (),
) -> Coverage:
    """Return the coverage from the first day of which anything is loaded or compared, up to today.

    `names` has the name of each metric id, `loaded` the windows of each that have been read without a gap, `history`
    those of which only the days that differ are in `compared`.
    """
    with_data = {metric_id: _days(windows, today) for metric_id, windows in loaded.items()}
    days_compared = _compared_days(compared, with_data, today)
    complete = grouped((each.metric_id, each.window) for each in history if each.state is not CountState.UNCOUNTED)
    done = (chunk for chunk in chunks if chunk.state is ChunkState.DONE)
    empty = grouped((chunk.metric_id, chunk.window) for chunk in done if chunk.expected == 0)
    starts = [window.start.date() for windows in loaded.values() for window in windows]
    first = min([*starts, *(day for _, day in days_compared), today])
    all_days = [first + number * DAY for number in range((today - first).days + 1)]
    shared = {name for name in names.values() if list(names.values()).count(name) > 1}
    days = {}
    for metric_id, name in sorted(names.items(), key=lambda item: (_natural_order(item[1]), item[0])):
        agreeing, without = _days(complete.get(metric_id, ()), today), _days(empty.get(metric_id, ()), today)
        read_days = with_data.get(metric_id, set())
        days[f"{name} ({metric_id})" if name in shared else name] = [
            days_compared.get((metric_id, day)) or _not_listed(day, agreeing, read_days, without) for day in all_days
        ]
    return Coverage(account, first, days)


def _natural_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts "Step 2" before "Step 10"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.casefold())]


def _not_listed(day: date, agreeing: set[date], loaded: set[date], empty: set[date]) -> Covered:
    if day in agreeing:
        return Covered.COMPLETE
    if day in empty:
        return Covered.NOTHING
    return Covered.LOADED if day in loaded else Covered.MISSING


def _compared_days(
    compared: Iterable[Comparison], loaded: Mapping[str, set[date]], today: date
) -> dict[tuple[str, date], Covered]:
    """Return the result of comparing each metric and day with the source.

    Counts that agree say nothing about the rest of a day that is neither loaded nor compared as a whole.
    """
    days: dict[tuple[str, date], Covered] = {}
    for (metric_id, day), group in groupby(sorted(compared), lambda row: (row.metric_id, row.window_start.date())):
        rows = list(group)
        if any(row.state is CountState.DIFFERS for row in rows):
            days[metric_id, day] = Covered.DIFFERS
        elif all(row.state is CountState.COMPLETE for row in rows):
            windows = [Window(row.window_start, row.window_end) for row in rows]
            is_whole = day in loaded.get(metric_id, ()) or day in _days(windows, today)
            days[metric_id, day] = _agreeing(rows) if is_whole else Covered.MISSING
    return days


def _agreeing(rows: Iterable[Comparison]) -> Covered:
    return Covered.COMPLETE if any(row.source_events for row in rows) else Covered.NOTHING


def _days(windows: Iterable[Window], today: date) -> set[date]:
    """Return the days that lie completely in the windows; of today, what has passed of it."""
    days: set[date] = set()
    for start, end in merged(windows):
        first = start.date() if start == midnight(start.date()) else start.date() + DAY
        until = min(end.date(), today)
        if end > midnight(today):
            until = today + DAY
        days.update(first + number * DAY for number in range((until - first).days))
    return days


def by_period(days: Sequence[Covered], size: int) -> list[Covered]:
    """Return the worst value of each period of `size` days."""
    return [min(days[at : at + size], key=_WORST_FIRST.index) for at in range(0, len(days), size)]


def label(text: str) -> str:
    """Return a name as it is shown: without control characters, and not too long."""
    shown = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(each)[0] == "C" else each for each in text)
    return shown if len(shown) <= _MAX_LABEL else f"{shown[: _MAX_LABEL - 1]}…"


def table(covered: Coverage) -> list[dict[str, str | int]]:
    """Return rows of text and numbers: days of each kind, and a strip of signs from the first day to the last."""
    size = max(1, -(-((covered.last - covered.first).days + 1) // _MAX_STRIP))
    return [
        {
            "metric": label(name),
            **{value.value: sum(day is value for day in days) for value in _SIGNS},
            "days": "".join(_SIGNS[value] for value in by_period(days, size)),
        }
        for name, days in covered.days.items()
    ]


def markdown(covered: Coverage) -> str:
    """Return the coverage as a table in Markdown."""
    names = ["metric", *(value.value for value in _SIGNS), "days"]
    lines = [
        f"{_escaped(label(covered.account))}: days from {covered.first} to {covered.last} (UTC). "
        + ", ".join(f"{sign} {value.value}" for value, sign in _SIGNS.items())
        + ".",
        "",
        f"| {' | '.join(names)} |",
        f"|---|{'---:|' * len(_SIGNS)}---|",
    ]
    for row in table(covered):
        cells = [_escaped(str(row["metric"])), *(str(row[name]) for name in names[1:-1]), f"`{row['days']}`"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return a name as nothing but text: no link, no markup, no end of a cell."""
    return "".join(f"\\{each}" if each in "\\`*_{}[]()<>#+!|~&$" else each for each in text)
