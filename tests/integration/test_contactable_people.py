"""The view `contactable`: each combination of the conditions of a channel, for one person each, against a model.

All people are in three accounts with the same IDs: one whose push tokens were read, one with PERSONAL_DATA=drop, and
one that has neither events nor exclusions.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import md5
from itertools import product
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

CONSENTED = datetime(2026, 1, 1, 12, 0, 0, 400_000, tzinfo=UTC)
BEFORE, SAME_SECOND, AFTER, LAST = (
    CONSENTED.replace(microsecond=0) + timedelta(seconds=seconds) for seconds in (-1, 0, 1, 2)
)
CHANNELS = ("email", "sms", "push", "whatsapp")
CONSENTS = ("SUBSCRIBED", "UNSUBSCRIBED", "NEVER_SUBSCRIBED", None)
FLAGS = (True, False, None)
DATED_BY = ("consent_timestamp", "updated_at", None)
TOKENS = {
    "enabled": ("AUTHORIZED", None),
    "provisional": ("PROVISIONAL", None),
    "denied": ("DENIED", None),
    "deleted": ("AUTHORIZED", AFTER),
}


class Case(NamedTuple):
    """The conditions of a person, on the channel that the person differs in from the others.

    `excluded` is what an exclusion names the person by, and `events` are changes: kind, scope and time.
    """

    channel: str = "email"
    consent: str | None = "SUBSCRIBED"
    can_receive: bool | None = True
    dated_by: str | None = "consent_timestamp"
    has_address: bool = True
    excluded: str | None = None
    events: tuple[tuple[str, str, datetime], ...] = ()
    table: str = "events"
    token: str | None = None

    @property
    def person(self) -> str:
        """A profile ID that spells the conditions."""
        return " ".join(f"{name}={value}" for name, value in self._asdict().items())

    @property
    def has_left(self) -> bool:
        """Return whether a stored event says that the person has unsubscribed since giving the consent."""
        changes = [(at, kind) for kind, scope, at in self.events if scope == "all"]
        since = CONSENTED.replace(microsecond=0) if self._has_consent and self.dated_by else AFTER - timedelta(days=1)
        return bool(changes) and max(changes)[1] == "unsubscribed" and max(changes)[0] >= since

    @property
    def _has_consent(self) -> bool:
        return self.consent is not None or self.can_receive is not None

    def consent_on(self, channel: str) -> dict[str, Any] | None:
        """Return what the profile says about a channel; None if nothing."""
        if channel != self.channel:
            return {"consent": "SUBSCRIBED", "can_receive": True, "consent_timestamp": CONSENTED}
        times = {name: CONSENTED for name in DATED_BY if name == self.dated_by and name is not None}
        return {"consent": self.consent, "can_receive": self.can_receive, **times} if self._has_consent else None


class Account(NamedTuple):
    """An account of the warehouse."""

    name: str
    personal_data: str = "keep"
    has_tokens: bool = False
    has_history: bool = True


ACCOUNTS = (Account("one", has_tokens=True), Account("two", "drop"), Account("three", has_history=False))


def cases() -> Iterator[Case]:
    excluded = (None, "id", "address", "lower case", "capitals", "lifted")
    unsubscribed = [[("unsubscribed", "all", at)] for at in (BEFORE, SAME_SECOND, AFTER)]
    again, of_a_list = ("subscribed", "all", LAST), ("unsubscribed", "list", AFTER)
    changes = [(), *map(tuple, unsubscribed), (*unsubscribed[2], again), (of_a_list,)]
    for consent, can_receive, dated_by in product(CONSENTS, FLAGS, DATED_BY):
        known = consent, can_receive, dated_by
        for has_address, by, events in product((True, False), excluded, changes):
            yield Case("email", *known, has_address, by, events)
        for has_address, events, table in product((True, False), changes[:4], ("events", "unsubscribes")):
            yield Case("sms", *known, has_address, events=events, table=table)
    for consent, can_receive in product(CONSENTS, FLAGS):
        for has_address in (True, False):
            yield Case("whatsapp", consent, can_receive, has_address=has_address)
        for token in (None, *TOKENS):
            yield Case("push", consent, can_receive, token=token)


CASES = list(cases())
OF_PUSH = [case for case in CASES if case.channel == "push"]


def expected(case: Case, account: Account) -> dict[str, str | None]:
    """Return the reason of each channel why the person may not be contacted."""
    reasons: dict[str, str | None] = dict.fromkeys(CHANNELS)
    reasons["push"] = "no_token" if account.has_tokens else "unknown"
    reasons[case.channel] = push_reason(case, account) if case.channel == "push" else reason(case, account)
    if case.channel in ("sms", "whatsapp") and not case.has_address and account.personal_data == "keep":
        reasons |= {"sms": "no_phone_number", "whatsapp": "no_phone_number"}  # they have one phone number
    return reasons


def reason(case: Case, account: Account) -> str | None:
    if not account.has_history:
        case = case._replace(excluded=None, events=())
    is_stored = case.has_address and account.personal_data == "keep"
    is_read = case.channel != "email" or case.consent is not None
    by_address = case.excluded in ("address", "lower case", "capitals")
    if account.personal_data == "keep" and not case.has_address and is_read:
        return "no_address"
    if case.consent == "UNSUBSCRIBED":
        return "unsubscribed"
    if case.consent == "NEVER_SUBSCRIBED":
        return "never_subscribed"
    if case.can_receive is False:
        return "suppressed" if case.channel == "email" else "cannot_receive"
    if case.excluded == "id" or (by_address and is_stored):
        return "suppressed"
    if case.has_left:
        return "unsubscribed"
    return None if case.consent == "SUBSCRIBED" and case.can_receive else "unknown"


def push_reason(case: Case, account: Account) -> str | None:
    if case.consent == "UNSUBSCRIBED":
        return "unsubscribed"
    if case.can_receive is False:
        return "never_subscribed" if case.consent == "NEVER_SUBSCRIBED" else "cannot_receive"
    if case.can_receive is None or not account.has_tokens:
        return "unknown"
    return None if case.token in ("enabled", "provisional") else "no_token"


def digest(text: str) -> str:
    return md5(text.encode()).hexdigest()


def store(connection: psycopg.Connection, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store rows that have the same columns."""
    query = SQL("INSERT INTO {0} ({1}) SELECT {1} FROM jsonb_populate_recordset(NULL::{0}, %s)")
    columns = SQL(", ").join(map(Identifier, rows[0]))
    connection.execute(query.format(Identifier(table), columns), [json.dumps(rows, default=str)])


def fill(connection: psycopg.Connection, account: Account, cases: Sequence[Case]) -> None:
    own = {"esp_integration_id": account.name}
    store(connection, "integrations", [{"name": account.name, "personal_data": account.personal_data, **own}])
    keeps = account.personal_data == "keep"
    metric = {"key": digest(f"{account.name} sms"), "id": "sms", "name": "Unsubscribed from SMS", **own}
    renamed = {**metric, "key": digest(f"{account.name} texts"), "name": "Unsubscribed from Text Message Marketing"}
    store(connection, "metrics", [metric | {"destination": "events"}, renamed | {"destination": "unsubscribes"}])
    people = ("members", "member_consents", "member_exclusions", "subscription_changes", "push_tokens")
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in (*people, "events", "unsubscribes")}
    for case in cases:
        key, id_, member_key = digest(account.name + case.person), case.person, digest(case.person)
        email = f"P{member_key}@Example.com"
        texted = case.channel in ("sms", "whatsapp") and not case.has_address
        rows["members"].append(
            {
                "key": key,
                "id": id_,
                "member_key": member_key,
                "email": email if keeps and not (case.channel == "email" and not case.has_address) else None,
                "phone_number": "+15550100" if keeps and not texted else None,
                "consent": case.consent if case.channel == "email" else "SUBSCRIBED",
                **own,
            }
        )
        for channel in CHANNELS:
            if consent := case.consent_on(channel):
                unknown = dict.fromkeys(("consent_timestamp", "updated_at"))
                row = {"key": digest(key + channel), "member_id": id_, "channel": channel, **unknown, **consent}
                rows["member_consents"].append(row | own)
        if case.excluded and account.has_history:
            address = {"id": None, "lower case": email.lower(), "capitals": email.upper()}.get(case.excluded, email)
            row = {"_sync_id": digest(address or key), "email": address, "member_id": None, "removed_at": None, **own}
            changed: dict[object, dict[str, Any]] = {
                "id": {"member_id": id_},
                "lifted": {"member_id": id_, "removed_at": AFTER},
            }
            rows["member_exclusions"].append(row | changed.get(case.excluded, {}))
        for number, (change, scope, at) in enumerate(case.events if account.has_history else ()):
            event = {"id": str(number), **own}
            if case.channel == "email":
                row = {"member_id": id_, "change": change, "scope": scope, "changed_at": at, **event}
                rows["subscription_changes"].append(row)
            else:
                metric_key = metric["key"] if case.table == "events" else renamed["key"]
                row = {"key": digest(key + case.table), "member_key": member_key, "event_at": at, **event}
                rows[case.table].append(row | {"metric_key": metric_key})
        if case.token and account.has_tokens:
            status, deleted_at = TOKENS[case.token]
            row = {"key": key, "id": key, "member_id": id_, "member_key": member_key, **own}
            rows["push_tokens"].append(row | {"enablement_status": status, "deleted_at": deleted_at})
    for table, each in rows.items():
        if each:
            store(connection, table, each)


def test_each_combination_is_decided_as_in_the_model(connection: psycopg.Connection) -> None:
    for account in ACCOUNTS:
        fill(connection, account, CASES)
    columns = ", ".join(f"can_{channel}, {channel}_reason" for channel in CHANNELS)
    rows = connection.execute(f"SELECT integration, member_id, {columns} FROM contactable".encode())
    found = {(name, person): tuple(values) for name, person, *values in rows}
    answers = {None: True, "unknown": None}
    assert found == {
        (account.name, case.person): tuple(
            value for each in expected(case, account).values() for value in (answers.get(each, False), each)
        )
        for account in ACCOUNTS
        for case in CASES
    }


def test_usable_push_tokens_have_the_same_owners(connection: psycopg.Connection) -> None:
    for account in ACCOUNTS:
        fill(connection, account, OF_PUSH)
    owners = connection.execute("SELECT DISTINCT esp_integration_id, member_id FROM usable_push_tokens").fetchall()
    people = "SELECT esp_integration_id, member_id FROM contactable WHERE can_push"
    assert sorted(connection.execute(people)) == sorted(owners)
    assert owners


def test_deleted_and_merged_profiles_have_no_row(connection: psycopg.Connection) -> None:
    fill(connection, ACCOUNTS[0], OF_PUSH)
    assert connection.execute("SELECT count(*) FROM contactable").fetchall() == [(len(OF_PUSH),)]
    connection.execute("UPDATE members SET deleted_at = now(), left_reason = 'merged'")
    assert connection.execute("SELECT count(*) FROM contactable").fetchall() == [(0,)]
