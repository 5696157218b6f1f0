"""Playing a history: things happen to an `Audience`, the product runs, and the warehouse is compared with a `Model`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from klaviyo_pg import schemas
from klaviyo_pg.catalogue.events import EVENT_TABLES
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.member_lists import derive_member_lists
from tests.audience import Audience
from tests.clock import Clock
from tests.erasing import erase
from tests.happenings import HAPPENINGS, NAMES, Scene
from tests.histories import ERASE, PEOPLE, History, Step, shrunk
from tests.model_of_people import Model, tables
from tests.runs import Result, Warehouse, url_of

SCHEMA = "klaviyo"
_NEW_YEAR = datetime(2025, 1, 1, tzinfo=UTC)
_OVERLAP, _FIRST_SYNC = timedelta(days=2), timedelta(days=20)
_ALWAYS_DUE = 1e-6  # days between sweeps
_MOST_ATTEMPTS = 60  # to shorten a history
_FILLED = ("members", "member_lists", "member_exclusions", *(table.name for table in EVENT_TABLES))

_ACCOUNT = "esp_integration_id = %(account)s"
_EVENTS = " UNION ALL ".join(f"SELECT id, member_key FROM {table.name} WHERE {_ACCOUNT}" for table in EVENT_TABLES)
_QUERIES = {  # as many columns of the key as in the keys of `tests.model_of_people.tables`, then the values
    "lists": (1, f"SELECT id, deleted_at FROM lists WHERE {_ACCOUNT} AND list_type = 'list'"),
    "exclusions": (1, f"SELECT email, removed_at FROM member_exclusions WHERE {_ACCOUNT}"),
    "members": (1, f"SELECT id, email, consent, deleted_at, left_reason FROM members WHERE {_ACCOUNT}"),
    "suppressions": (
        2,
        f"SELECT list_id, member_id, reason, suppressed_at, lifted_at FROM list_suppressions WHERE {_ACCOUNT}",
    ),
    "events": (
        1,
        f"SELECT event.id, person.id FROM ({_EVENTS}) AS event LEFT JOIN people AS person USING (member_key)",
    ),
    "merges": (
        2,
        "SELECT old.id, new.id, detected_at FROM profile_merges AS merge"
        " LEFT JOIN people AS old ON old.member_key = merge.old_member_key"
        f" LEFT JOIN people AS new ON new.member_key = merge.new_member_key WHERE {_ACCOUNT}",
    ),
    "member_lists": (
        2,
        "SELECT list_id, member_id, subscribed, unsubscribed_at, is_subscribed, left_reason FROM member_lists"
        f" WHERE {_ACCOUNT}",
    ),
}
_PEOPLE = ", ".join(f"('P{number}', md5('P{number}'))" for number in range(PEOPLE))

Rows = dict[Any, Any]


class Difference(AssertionError):
    """The warehouse differs from the model. The message has the history and each difference."""


@dataclass
class Stage:
    """A place to play histories: a warehouse with its clock. Each history has a separate integration."""

    warehouse: Warehouse
    clock: Clock
    connection: psycopg.Connection
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @classmethod
    def opened(cls, connection: psycopg.Connection, database: str, folder: Path) -> "Stage":
        """Return the stage in a database that has the tables. The connection is in autocommit mode."""
        clock = Clock(connection, _NEW_YEAR)
        connection.execute(f"SET search_path = {SCHEMA}, {schemas.internal(SCHEMA)}")
        settings = {"database_url": url_of(database), "klaviyo_api_key": "pk_none", "data_dir": folder}
        return cls(Warehouse(database, {**settings, "concurrency": 1}, now=clock), clock, connection)

    def play(self, history: History) -> None:
        """Play a history. Raises Difference where the warehouse is not as the model says."""
        _Play(self, history).play()

    def play_shortened(self, history: History) -> None:
        """Play a history; if it shows a difference, raise Difference for a shorter one that does too.

        This takes less time than hypothesis' own shrinking, because leaving out a step changes no other step.
        """
        if self._differs(history):
            self.play(shrunk(history, self._differs, _MOST_ATTEMPTS))

    def _differs(self, history: History) -> bool:
        try:
            self.play(history)
        except Difference:
            return True
        return False


class _Play:
    """One history being played."""

    def __init__(self, stage: Stage, history: History) -> None:
        self._stage, self._history, self._clock = stage, history, stage.clock
        name = f"history {next(stage.numbers)}"
        self._account = Audience(now=stage.clock, account_id=name)
        self._model = Model(_OVERLAP, _FIRST_SYNC)
        self._log = [f"DELETED_PROFILES={history.deleted_profiles}"]
        self._integration_id: str | None = None
        self._warehouse = stage.warehouse.variant(
            klaviyo_integration=name,
            lookback_days=_OVERLAP.days,
            first_sync_days=_FIRST_SYNC.days,
            reconcile_days=0,
            deleted_profiles=history.deleted_profiles,
        )
        self._warehouse.open_source = self._account.open

    def play(self) -> None:
        self._begin()
        for period in self._history.periods:
            for step in period.steps:
                self._clock.at += timedelta(seconds=step.after)
                self._do(step)
            self._clock.at += timedelta(seconds=max(1, period.after))
            self._run(period.run)
            self._compare()

    def _begin(self) -> None:
        """Create the account, a day after the start of the history that backfills load."""
        self._clock.set(_NEW_YEAR + timedelta(days=1))
        for number, name in enumerate(NAMES):
            self._account.create_list(f"L{number}", name, self._clock.at)
        for number in range(PEOPLE):
            self._account.create_person(f"P{number}", self._clock.at)

    def _note(self, sentence: str) -> None:
        self._log.append(f"{self._clock.at:%m-%d %H:%M:%S} {sentence}")

    def _do(self, step: Step) -> None:
        """Let a step happen, if it can."""
        people, lists = sorted(self._account.people), sorted(self._account.names())
        person, other = people[step.person % len(people)], people[step.other % len(people)]
        if step.action == ERASE:
            self._erase(person, self._account.people[person].email if step.variant else None)
            return
        list_id = lists[step.list % len(lists)] if lists else None
        scene = Scene(self._clock.at, person, other, list_id, step.other, step.variant)
        if sentence := HAPPENINGS[step.action](self._account, scene):
            self._note(sentence)

    def _erase(self, profile_id: str, email: str | None) -> None:
        """Erase a person, by the address if there is one, from the warehouse and from the model."""
        if self._integration_id is None:
            return
        self._clock.set(self._clock.at)
        with self._stage.connection.transaction():
            account = Account(self._stage.connection, SCHEMA, self._integration_id)
            erase(account, email, () if email else [profile_id])
        self._model.erase(None if email else profile_id, email)
        self._note(f"{profile_id} is erased from the warehouse{f' by the address {email}' if email else ''}")

    def _run(self, kind: str) -> None:
        self._clock.set(self._clock.at)
        self._note(f"{kind} run")
        result = self._backfill() if kind == "backfill" else self._daily(kind == "sweep")
        self._account.requests.clear()
        self._integration_id = result.run.integration_id
        if result.exit_code:
            raise Difference("\n".join([*self._log, f"The run ended with {result.exit_code}: {result.sentences}"]))

    def _backfill(self) -> Result:
        result = self._warehouse.backfill(_NEW_YEAR, restart=True)
        self._model.read_history(self._account, _NEW_YEAR, self._clock.at)
        return result

    def _daily(self, is_sweep: bool) -> Result:
        days = _ALWAYS_DUE if is_sweep else 0
        result = self._warehouse.daily(*_FILLED, membership_sweep_days=days, profile_sweep_days=days)
        erases = self._history.deleted_profiles == "erase"
        self._model.read_daily(self._account, self._clock.at, is_sweep, erases)
        return result

    def _compare(self) -> None:
        assert self._integration_id is not None
        expected, actual = tables(self._model), stored(self._stage.connection, self._integration_id)
        differences = [line for table in expected for line in _differences(table, expected[table], actual[table])]
        differences += self._differences_of_whole(self._integration_id)
        if differences:
            raise Difference("\n".join([*self._log, *differences]))

    def _differences_of_whole(self, integration_id: str) -> list[str]:
        """Return whether member_lists, as it was derived from changes, differs from a derivation as a whole."""
        with self._stage.connection.transaction(force_rollback=True):
            derived = derive_member_lists(
                Account(self._stage.connection, SCHEMA, integration_id), whole=True, has_status=False
            )
        if derived.inserted or derived.updated:
            return [f"member_lists as a whole differs from what was derived from changes: {derived}"]
        return []


def stored(connection: psycopg.Connection, integration_id: str) -> dict[str, Rows]:
    """Return what the warehouse contains, in the form of `tests.model_of_people.tables`."""
    contents: dict[str, Rows] = {}
    for table, (key_columns, query) in _QUERIES.items():
        with_people = f"WITH people (id, member_key) AS (VALUES {_PEOPLE}) {query}"
        rows = connection.execute(with_people, {"account": integration_id}).fetchall()
        contents[table] = {_plain(row[:key_columns]): _plain(row[key_columns:]) for row in rows}
    return contents


def _plain(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else values


def _differences(table: str, expected: Rows, actual: Rows) -> Iterator[str]:
    for key in sorted({*expected, *actual}, key=str):
        if expected.get(key, "no row") != actual.get(key, "no row"):
            yield f"{table} {key}: expected {_shown(expected, key)}, actual {_shown(actual, key)}"


def _shown(rows: Mapping[Any, Any], key: Any) -> str:
    row = rows.get(key, "no row")
    values = row if isinstance(row, tuple) else (row,)
    return ", ".join(f"{each:%m-%d %H:%M:%S}" if isinstance(each, datetime) else str(each) for each in values)
