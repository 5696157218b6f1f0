"""One run of a flow: how it begins and ends, and what every part of it needs to know. Reads no stream."""

import hashlib
import json
import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import psycopg

from klaviyo_pg import rows
from klaviyo_pg.catalogue import loads
from klaviyo_pg.errors import BadSettings, ClaimLost, KlaviyoPgError, Stopped
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import accounts, claims, clock, details, future, schema, schema_lock
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.connect import tables_may_be_missing
from klaviyo_pg.postgres.ledgers import commits, run_ledger
from klaviyo_pg.postgres.load import merge
from klaviyo_pg.postgres.patience import repeated
from klaviyo_pg.postgres.schema_changes import SchemaChange
from klaviyo_pg.settings import Settings
from klaviyo_pg.states import RunState
from klaviyo_pg.traffic import Traffic
from pipeline import checks, kept_events, refused
from pipeline.batch import Batch, protect
from pipeline.session import Session
from transforms import definitions

_LONGEST_OPENING = 60.0  # seconds that opening or joining a run is repeated while the database is away
_PLANNED_BY = {"klaviyo_dialect", "lookback_days", "reconcile_days", "first_sync_days", "metrics", "tables"}

Result = TypeVar("Result")
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass(frozen=True)
class Run:
    """A run that has begun. `as_of` is its present: it reads what the source contains up to then.

    `resumed_at` is when this process resumed a run that did not finish; None: it has not. `notes` are sentences about
    the run that its result has to contain. `is_limited` is that of `run_ledger.OpenedRun`.
    """

    id: str
    integration_id: str
    account_id: str | None
    as_of: datetime
    settings: Settings
    answer_seconds: float = 0.0  # how long the API's first, small answer took
    resumed_at: datetime | None = None
    notes: tuple[str, ...] = ()
    is_limited: bool = False

    def account(self, connection: psycopg.Connection) -> Account:
        """Return this run's part of the warehouse, on a connection."""
        return Account(connection, self.settings.warehouse_schema, self.integration_id)


def transact(session: Session, run: Run, work: Callable[[Account], Result]) -> Result:
    """Do some work in one transaction, and return its result; repeat it while the database is away, within limits.

    A claim that was lost is taken again first. Raises Busy, and writes nothing, if another process has taken it. Raises
    ClocksDiffer if a clock was set since the run began, so that nothing is recorded with a wrong time.
    """

    return _with_claims(session, run, work, session.compare_clocks)


def _with_claims(
    session: Session,
    run: Run,
    work: Callable[[Account], Result],
    check_time: Callable[[datetime], object] = lambda database: None,
) -> Result:
    """Do some work in one transaction under the claims of the session, as `transact` does, whatever clocks show.

    `check_time` is called with the database's time. Work is never committed twice: where the answer to a COMMIT is
    lost, the next attempt finds the token of a transaction that was committed, and returns its result.
    """
    writer = f"{session.id}/{threading.get_ident()}"
    unanswered: tuple[str, Result] | None = None

    def guarded(connection: psycopg.Connection) -> Result:
        nonlocal unanswered
        check_time(session.claims.hold_for_transaction(connection))
        account = run.account(connection)
        if unanswered is not None and commits.was_committed(account, writer, unanswered[0]):
            return unanswered[1]
        unanswered = None
        result, token = work(account), uuid.uuid4().hex
        if commits.leave(account, writer, token):
            unanswered = token, result
        return result

    while True:
        try:
            return session.database.patiently(guarded)
        except ClaimLost:
            session.database.wait_for(session.claims.renew)


def begin(session: Session, flow: str, selection: Mapping[str, object], log: Log, is_limited: bool = False) -> Run:
    """Check the API key and the database, bring the warehouse up to the catalogue, and open the run.

    `is_limited` is that of `run_ledger.open_run`.

    Raises UserError where the key, the database, the account's name or the name of a metric is wrong, where claims
    would not work, and where clocks differ. The warehouse records the error, if it has the account.
    """
    with refused.recorded(session.settings, flow):
        return _begin(session, flow, selection, log, is_limited)


def _begin(session: Session, flow: str, selection: Mapping[str, object], log: Log, is_limited: bool) -> Run:
    settings = session.settings
    settings.check_warehouse()
    session.check_claims_work()
    source = session.first_source()
    described = checks.fetch_account(source, settings, log.warning)
    stored = _metrics_to_check(session, described)
    checks.check_metric_names(source, settings, stored.metrics)
    if stored.must_identify_account:
        checks.check_recognized(source, settings, stored.metrics)
    attempt = _Opening(session, flow, selection, source, described, is_limited).attempt
    opening = partial(session.database.wait_for, attempt, _LONGEST_OPENING)
    run, before, changes = repeated(opening, schema_lock.PATIENCE, log.warning)
    for change in changes:
        log.info("%s", change.sentence)
    for note in run.notes:
        log.info("%s", note)
    if before is not None and run.resumed_at is None:
        session.progress.seconds_before = before.total_seconds()
        log.info("The last run like this one took %s", timedelta(seconds=round(before.total_seconds())))
    return run


_Opened = tuple[Run, timedelta | None, list[SchemaChange]]
"""A run, how long the last one took, and what the upgrade of the warehouse changed."""


@dataclass
class _Opening:
    """Opens a run, once even if the answer to COMMIT is lost: an attempt leaves a token that shows whether it did."""

    session: Session
    flow: str
    selection: Mapping[str, object]
    source: Source
    described: rows.Account | None
    is_limited: bool
    _token: str = ""
    _result: _Opened | None = None

    def attempt(self) -> _Opened:
        """Bring the warehouse up to the catalogue and open the run, in one transaction.

        Returns the result of the last attempt if that was committed. Raises TablesInUse, and opens no run, if other
        sessions use tables that have to be changed.
        """
        settings, writer = self.session.settings, f"{self.session.id}/{threading.get_ident()}"
        with self.session.database.transaction() as connection:
            clocks = self.session.compare_clocks(clock.present(connection))
            now = clocks.earliest.replace(microsecond=0)
            changes = schema.upgrade(connection, settings.warehouse_schema, schema.storage_of(settings))
            account_id = self.described.id if self.described else settings.klaviyo_account_id
            account, account_id = _registered(connection, settings, account_id)
            checks.check_stays(account, settings.klaviyo_integration)
            self.session.claims.take(account.integration_id, self.flow)
            self.session.claims.hold_for_transaction(connection)
            checks.check_stays(account, settings.klaviyo_integration)  # removing it can have ended before the claim
            if self._result is not None and commits.was_committed(account, writer, self._token):
                return self._result
            repair = future.repair(account, clocks.database, self.session.clock_tolerance)
            asked = _digest(settings, self.selection)
            before = run_ledger.last_duration(account, self.flow, asked)
            opened = run_ledger.open_run(account, self.flow, asked, now, self.is_limited)
            run_ledger.take(account, self.flow, opened.run_id, self.session.id)
            commits.forget(account)
            run_ledger.add_requests(account, opened.run_id, self.source.traffic)
            if self.described:
                _describe(account, opened.run_id, self.described, settings)
            notes = (
                repair.sentence,
                checks.time_zone_warning(connection, self.described.timezone if self.described else None),
                _follow_readable_names(account, settings, opened.as_of),
                _resumption(opened.as_of) if opened.is_resumed else None,
            )
            if settings.events_since is not None:
                kept_events.forget_before(account, self.session, settings.events_kept_since)
            run = Run(
                opened.run_id,
                account.integration_id,
                account_id,
                opened.as_of,
                settings,
                answer_seconds=self.source.traffic.seconds_per_request,
                resumed_at=now if opened.is_resumed else None,
                notes=tuple(filter(None, notes)),
                is_limited=opened.is_limited,
            )
            self._token, self._result = uuid.uuid4().hex, (run, before, changes)
            commits.leave(account, writer, self._token)
        return run, before, changes


def _resumption(as_of: datetime) -> str:
    return (
        f"Resumed the unfinished run of {as_of.astimezone(UTC):%Y-%m-%d %H:%M} UTC. Windows of past events that it had "
        "finished were not read again."
    )


def _describe(account: Account, run_id: str, described: rows.Account, settings: Settings) -> None:
    """Store what the source says about the account, and count it as a row of the run."""
    [(load, frame)] = protect(
        Batch([(loads.ACCOUNTS, definitions.accounts([described], account.integration_id).frame)]), settings
    ).frames
    counts = dict.fromkeys(run_ledger.COUNTS, 0) | merge(account, load, frame).counts
    run_ledger.add_counts(account, run_id, {load.table.name: counts})


def _metrics_to_check(session: Session, described: rows.Account | None) -> checks.MetricsToCheck:
    """Return the stored metrics that checks need; none if the warehouse has no tables yet."""

    def look_up() -> checks.MetricsToCheck:
        with session.database.transaction() as connection:
            return checks.metrics_to_check(connection, session.settings, described)

    with tables_may_be_missing():
        return session.database.wait_for(look_up, _LONGEST_OPENING)
    return checks.MetricsToCheck()


def _registered(
    connection: psycopg.Connection, settings: Settings, account_id: str | None
) -> tuple[Account, str | None]:
    """Register the account under its name, and return it with its id, which an earlier run may have stored."""
    name, schema_name = settings.klaviyo_integration, settings.warehouse_schema
    account_id = checks.check_registration(connection, settings, account_id)
    protection = settings.personal_data, settings.salt_digest
    return accounts.register(connection, schema_name, name, account_id, *protection), account_id


def _follow_readable_names(account: Account, settings: Settings, as_of: datetime) -> str | None:
    """Let the next daily run, such as this one of the time `as_of`, read all people if READABLE_PROPERTIES has changed.

    Return a sentence about it.
    """
    before, now = accounts.readable_digest(account), settings.readable_digest
    if before == now:
        return None
    accounts.record_readable(account, now)
    if before is None:
        return None
    details.record_outdated(account, as_of - timedelta(seconds=1))
    return (
        "READABLE_PROPERTIES has changed: a daily run reads all people again. Stored events keep the names as they "
        "are until you run klaviyo-pg backfill --start DATE --restart."
    )


def _digest(settings: Settings, selection: Mapping[str, object]) -> str:
    """Identify what a run is asked to do: only a run with the same digest may resume its chunks."""
    planned = settings.model_dump(include=_PLANNED_BY)
    planned["tables"] = sorted(settings.tables)
    planned["readable"] = settings.readable_digest
    return hashlib.sha256(json.dumps({**selection, **planned}, sort_keys=True, default=str).encode()).hexdigest()[:16]


def join(session: Session, run_id: str, flow: str, claim: str, answer_seconds: float) -> Run:
    """Join a run of `flow` that another process has begun. Sends no request to the API.

    Raises BadSettings where this warehouse has no such run, or has the account with another ID or protection of
    personal data or other names in READABLE_PROPERTIES, and Stopped where the run is no longer in progress.
    """
    session.check_claims_work()
    started = session.database.wait_for(partial(_started, session, run_id, flow), _LONGEST_OPENING)
    session.database.wait_for(partial(session.claims.take, started.integration_id, claim), _LONGEST_OPENING)
    return Run(run_id, started.integration_id, started.account_id, started.as_of, session.settings, answer_seconds)


def _started(session: Session, run_id: str, flow: str) -> run_ledger.StartedRun:
    """Return the run to join, which this process may join."""
    settings = session.settings
    with session.database.transaction() as connection:
        session.compare_clocks(clock.present(connection))
        started = run_ledger.find_run(connection, settings.warehouse_schema, settings.klaviyo_integration, run_id)
        if started is None:
            raise BadSettings(f"This warehouse has no run {run_id} of {settings.klaviyo_integration}.")
        checks.check_registration(connection, settings, settings.klaviyo_account_id)
        account = Account(connection, settings.warehouse_schema, started.integration_id)
        checks.check_stays(account, settings.klaviyo_integration)
        checks.check_readable_properties(account, settings)
        if not (started.is_latest and claims.held(account, [flow])):
            raise Stopped(f"The {flow} run that this belongs to has ended. Rerun the {flow} to resume.")
    return started


def add_requests(session: Session, run: Run, traffic: Traffic) -> None:
    """Note requests that no batch accounts for, such as those of a chunk that failed, so that the run's count is true.

    Where the database does not accept the note, the error of the chunk is what matters.
    """
    if session.claims.are_lost:
        return
    with suppress(KlaviyoPgError, psycopg.Error), session.database.transaction() as connection:
        run_ledger.add_requests(run.account(connection), run.id, traffic)


def finish(session: Session, run: Run, state: RunState, sentences: Sequence[str]) -> None:
    """Close the run, also if it ended because clocks differ."""
    message = " ".join(sentences) or None
    _with_claims(session, run, lambda account: run_ledger.close_run(account, run.id, state, message))


def close_after_error(session: Session, run: Run, state: RunState, message: str) -> None:
    """Close the run if the database accepts it; the error that ended the run is what matters.

    A run that another process has taken over is left to that process.
    """
    with suppress(KlaviyoPgError, psycopg.Error), session.database.transaction() as connection:
        session.claims.renew()
        session.claims.hold_for_transaction(connection)
        run_ledger.close_run(run.account(connection), run.id, state, message)
