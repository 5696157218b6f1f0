"""The truth table of docs/people.md: each combination of its conditions, for one person each, is derived as it says."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import md5
from itertools import product, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.member_lists import derive_member_lists

PAGE = Path(__file__).resolve().parents[2] / "docs" / "people.md"
CONDITIONS = (
    *("on the list", "list suppression", "list deleted", "profile deleted", "global suppression", "address"),
    "consent",
)
RESULTS = ("is_subscribed", "unsubscribed_at", "left_reason")
JOINED = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TIMES: Mapping[str, datetime | None] = {
    "time of the sweep": JOINED + 1 * DAY,
    "time of the suppression": JOINED + 2 * DAY,
    "time of the event": JOINED + 3 * DAY,
    "lists.deleted_at": JOINED + 4 * DAY,
    "members.deleted_at": JOINED + 5 * DAY,
    "null": None,
}
VALUES: Mapping[str, bool | None] = {"true": True, "false": False, "null": None}
CONSENTS = ("SUBSCRIBED", "UNSUBSCRIBED", "NEVER_SUBSCRIBED", "unknown")


class Mode(NamedTuple):
    """The dialect of an account, and its PERSONAL_DATA. With `drop`, members have no address."""

    has_status: bool
    personal_data: str


MODES = [Mode(*values) for values in product((False, True), ("keep", "drop"))]


class Row(NamedTuple):
    """A row of the table in the documentation."""

    conditions: Mapping[str, str]
    results: Mapping[str, str]


class Case(NamedTuple):
    """A combination of conditions. `legacy` is what the legacy dialect says in place of the consent."""

    left_by_event: bool
    left_by_sweep: bool
    is_suppressed: bool
    is_list_deleted: bool
    is_profile_deleted: bool
    is_excluded: bool
    has_address: bool
    consent: str
    legacy: bool | None

    @property
    def person(self) -> str:
        """A profile id that spells the combination."""
        return " ".join(f"{name}={value}" for name, value in self._asdict().items())

    @property
    def list_id(self) -> str:
        return "DELETED" if self.is_list_deleted else "LIST"

    def words(self, mode: Mode) -> Mapping[str, set[str]]:
        """Return the words of the table that apply, by condition."""
        ways = {word for word, applies in self._ways if applies} or {"yes"}
        flags = (self.is_suppressed, self.is_list_deleted, self.is_profile_deleted, self.is_excluded)
        status = self.legacy if mode.has_status else None
        consent = {None: self.consent, True: "SUBSCRIBED", False: "UNSUBSCRIBED"}[status]
        answers = [ways, *({"yes" if flag else "no"} for flag in flags), {self._address(mode)}, {consent}]
        return dict(zip(CONDITIONS, answers, strict=True))

    def _address(self, mode: Mode) -> str:
        if self.is_address_stored(mode):
            return "yes"
        if mode.has_status:
            return "unknown"
        return "yes" if mode.personal_data == "drop" else "no"

    def is_address_stored(self, mode: Mode) -> bool:
        return self.has_address and mode.personal_data != "drop"

    @property
    def _ways(self) -> tuple[tuple[str, bool], ...]:
        return ("no, by an event", self.left_by_event), ("no, by a sweep", self.left_by_sweep)

    def meets(self, row: Row, mode: Mode) -> bool:
        """Return whether a row of the table applies."""
        words = self.words(mode)
        return all(word == "any" or word in words[name] for name, word in row.conditions.items())


FLAGS = (False, True)
CASES = [Case._make(values) for values in product(*[FLAGS] * 7, CONSENTS, (None, True, False))]


def documented() -> list[Row]:
    """Parse the table."""
    lines = PAGE.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {CONDITIONS[0]} |"))
    block = takewhile(lambda line: line.startswith("|"), lines[start:])
    header, _, *cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in block]
    assert tuple(header) == CONDITIONS + RESULTS
    named = [dict(zip(header, row, strict=True)) for row in cells]
    return [Row({name: row[name] for name in CONDITIONS}, {name: row[name] for name in RESULTS}) for row in named]


def decisive(case: Case, mode: Mode, table: list[Row]) -> int:
    """Return the number of the first row that applies."""
    applying = [number for number, row in enumerate(table) if case.meets(row, mode)]
    assert applying, f"no row of the table applies to {case}"
    return applying[0]


def expected(case: Case, mode: Mode, table: list[Row]) -> tuple[Any, ...]:
    """Return is_subscribed, unsubscribed_at and left_reason as the table says."""
    results = table[decisive(case, mode, table)].results
    reason = None if results["left_reason"] == "null" else results["left_reason"]
    return VALUES[results["is_subscribed"]], TIMES[results["unsubscribed_at"]], reason


def key(row_id: str) -> str:
    return f"md5('Klaviyo:one:' || {row_id})"


_STATEMENTS = {
    "lists": (
        "INSERT INTO lists (key, id, name, list_type, esp_integration_id, deleted_at)"
        f" VALUES ({key('%(list_id)s')}, %(list_id)s, %(list_id)s, 'list', 'one', %(deleted_at)s)"
    ),
    "members": (
        "INSERT INTO members (key, id, email, consent, esp_integration_id, deleted_at)"
        f" VALUES ({key('%(person)s')}, %(person)s, %(email)s, %(consent)s, 'one',"
        " %(profile_deleted_at)s)"
    ),
    "stage": (
        "INSERT INTO stg_member_lists"
        " (list_id, member_id, created_at, _sync_id, esp_integration_id, is_subscribed, absent_since)"
        " VALUES (%(list_id)s, %(person)s, %(joined)s, md5(%(list_id)s || ':' || %(person)s), 'one', %(legacy)s,"
        " %(absent_since)s)"
    ),
    "change": (
        "INSERT INTO subscription_changes"
        " (id, member_id, change, list_id, list_name, changed_at, scope, esp_integration_id)"
        " VALUES (%(person)s, %(person)s, 'unsubscribed', %(list_id)s, %(list_id)s, %(event_at)s, 'list', 'one')"
    ),
    "suppression": (
        "INSERT INTO list_suppressions (list_id, member_id, reason, suppressed_at, esp_integration_id)"
        " VALUES (%(list_id)s, %(person)s, 'USER_SUPPRESSED', %(suppressed_at)s, 'one')"
    ),
    "exclusion": (
        "INSERT INTO member_exclusions (email, _sync_id, esp_integration_id, member_id)"
        " VALUES (%(email)s, coalesce(md5(%(email)s), md5(%(person)s)), 'one',"
        " CASE WHEN %(email)s IS NULL THEN %(person)s END)"
    ),
}


def parameters(case: Case, mode: Mode) -> dict[str, Any]:
    return {
        "person": case.person,
        "email": f"{md5(case.person.encode()).hexdigest()}@example.com" if case.is_address_stored(mode) else None,
        "list_id": case.list_id,
        "joined": JOINED,
        "consent": None if case.consent == "unknown" else case.consent,
        "legacy": case.legacy,
        "profile_deleted_at": TIMES["members.deleted_at"] if case.is_profile_deleted else None,
        "absent_since": TIMES["time of the sweep"] if case.left_by_sweep else None,
        "event_at": TIMES["time of the event"],
        "suppressed_at": TIMES["time of the suppression"],
    }


def insert(connection: psycopg.Connection, name: str, mode: Mode, cases: Iterable[Case]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(_STATEMENTS[name], [parameters(case, mode) for case in cases])


def derived(account: Account, mode: Mode) -> dict[str, tuple[Any, ...]]:
    """Store one person for each combination and return is_subscribed, unsubscribed_at and left_reason by person."""
    connection = account.connection
    connection.execute(
        "INSERT INTO integrations (name, esp_integration_id, personal_data) VALUES ('shop', 'one', %s)",
        [mode.personal_data],
    )
    for list_id, deleted_at in (("LIST", None), ("DELETED", TIMES["lists.deleted_at"])):
        connection.execute(_STATEMENTS["lists"], {"list_id": list_id, "deleted_at": deleted_at})
    insert(connection, "members", mode, CASES)
    insert(connection, "stage", mode, CASES)
    insert(connection, "change", mode, (case for case in CASES if case.left_by_event))
    insert(connection, "suppression", mode, (case for case in CASES if case.is_suppressed))
    insert(connection, "exclusion", mode, (case for case in CASES if case.is_excluded))
    derive_member_lists(account, has_status=mode.has_status)
    query = f"SELECT member_id, {', '.join(RESULTS)} FROM member_lists"
    return {person: tuple(values) for person, *values in connection.execute(query)}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_each_combination_is_derived_as_documented(account: Account, mode: Mode) -> None:
    table, found = documented(), derived(account, mode)
    assert len(found) == len(CASES)
    assert found == {case.person: expected(case, mode, table) for case in CASES}


def test_each_row_of_the_table_decides_some_combination() -> None:
    """A row that never comes first would say nothing."""
    table = documented()
    assert {decisive(case, mode, table) for case in CASES for mode in MODES} == set(range(len(table)))
