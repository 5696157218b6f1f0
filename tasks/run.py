"""One run of a flow: what every task of it needs to know, and how it begins and ends."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import psycopg
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from klaviyo_pg.errors import BadSettings, KlaviyoPgError, MissingScope, Stopped
from klaviyo_pg.klaviyo.http import Traffic
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import claims, connect, ledger, schema
from klaviyo_pg.postgres.connect import transaction
from klaviyo_pg.postgres.membership import derive_member_lists
from klaviyo_pg.settings import Settings
from tasks import edges, stopping

_PLANNED_BY = {"klaviyo_dialect", "lookback_days", "reconcile_days", "first_sync_days", "metrics"}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Run:
    """A run that has begun. `as_of` is its present: it reads what the source holds up to then."""

    id: str
    integration_id: str
    account_id: str | None
    as_of: datetime
    settings: Settings
    answer_seconds: float = 0.0  # what the API's first, small answer took

    @property
    def schema(self) -> str:
        return self.settings.warehouse_schema


def patiently(run: Run, work: Callable[[psycopg.Connection], Result]) -> Result:
    """What `work` answers, in one transaction; begun again for as long as the database is away, within reason."""
    return connect.patiently(edges.engine(run.settings), work)


@task(task_run_name="prepare", cache_policy=NO_CACHE, persist_result=False)
def begin(settings: Settings, flow: str, selection: Mapping[str, object]) -> Run:
    """Check both edges, bring the warehouse up to the catalogue, and open the run.

    Raises UserError where the key, the database or the account's name is not right.
    """
    logger = get_run_logger()
    stopping.begin()
    source = edges.source(settings, first_contact=True)
    told, configured = _account_id(source), settings.klaviyo_account_id
    if told and configured and told != configured:
        raise BadSettings(f"KLAVIYO_ACCOUNT_ID is {configured}, but the API key is of account {told}.")
    account_id = told or configured
    now = datetime.now(UTC).replace(microsecond=0)
    with transaction(edges.engine(settings)) as connection:
        schema.upgrade(connection, settings.warehouse_schema)
        name = settings.klaviyo_integration
        known = ledger.known_account(connection, settings.warehouse_schema, name)
        if known and account_id and known != account_id:
            raise BadSettings(
                f"KLAVIYO_INTEGRATION {name} is account {known} in this warehouse, but the API key is of account "
                f"{account_id}: give this account another name."
            )
        protection = (settings.personal_data, settings.salt_digest)
        integration_id = ledger.register(connection, settings.warehouse_schema, name, account_id, *protection)
        _check_protection(settings, *ledger.protection(connection, settings.warehouse_schema, integration_id))
        edges.claim(settings, integration_id, flow)
        opened = ledger.open_run(
            connection, settings.warehouse_schema, integration_id, flow, _digest(settings, selection), now
        )
        ledger.add_requests(connection, settings.warehouse_schema, opened.run_id, source.traffic)
    if opened.continued:
        logger.info("Going on with the run of %s that did not finish", opened.as_of)
    first = source.traffic
    answer_seconds = first.seconds / max(1, first.requests)
    return Run(opened.run_id, integration_id, account_id or known, opened.as_of, settings, answer_seconds)


def _check_protection(settings: Settings, stored: str, salt_digest: str | None) -> None:
    """Another mode, or another salt, would leave rows of both kinds side by side."""
    name, elsewhere = settings.klaviyo_integration, "set WAREHOUSE_SCHEMA to another schema and sync all of it anew"
    if settings.personal_data != stored:
        raise BadSettings(
            f"PERSONAL_DATA is {settings.personal_data}, but the rows of {name} in this warehouse were stored with "
            f"{stored}: set it to {stored}, or {elsewhere}."
        )
    if settings.salt_digest != salt_digest:
        raise BadSettings(
            f"PERSONAL_DATA_SALT is not the one that the rows of {name} in this warehouse were stored with: set it to "
            f"that one, or {elsewhere}."
        )


@task(task_run_name="join", cache_policy=NO_CACHE, persist_result=False)
def join(settings: Settings, run_id: str, flow: str, claim: str, answer_seconds: float) -> Run:
    """A part in a run of `flow` that another process has begun, and has under way still: else it raises Stopped.

    Raises BadSettings where this warehouse has no run of that id. Asks the API for nothing: what a beginning asks may
    be asked a few times a minute only, and there are many parts.
    """
    stopping.begin()
    with transaction(edges.engine(settings)) as connection:
        found = ledger.begun(connection, settings.warehouse_schema, settings.klaviyo_integration, run_id)
        if found is None:
            raise BadSettings(f"This warehouse has no run {run_id} of {settings.klaviyo_integration}.")
        if not claims.held(connection, settings.warehouse_schema, found.integration_id, [flow]):
            raise Stopped(f"The {flow} that this is a part of is over; the same {flow} goes on where it stopped.")
    edges.claim(settings, found.integration_id, claim)
    return Run(run_id, found.integration_id, found.account_id, found.as_of, settings, answer_seconds)


def _account_id(source: Source) -> str | None:
    try:
        return source.account_id()
    except MissingScope as error:
        get_run_logger().warning("%s Until then _account_id stays as it is.", error)
        return None


def _digest(settings: Settings, selection: Mapping[str, object]) -> str:
    """What a run is asked to do: only one that is asked the same may go on with its parts."""
    planned = settings.model_dump(include=_PLANNED_BY)
    selection = {**selection, **planned}
    return hashlib.sha256(json.dumps(selection, sort_keys=True, default=str).encode()).hexdigest()[:16]


def count_requests(run: Run, traffic: Traffic) -> None:
    """Note requests of a part that failed, so that the run's count is true; those that succeed note theirs.

    Where the database does not take the note the part's own error is what matters.
    """
    with suppress(KlaviyoPgError, psycopg.Error), transaction(edges.engine(run.settings)) as connection:
        ledger.add_requests(connection, run.schema, run.id, traffic)


@task(task_run_name="member_lists", cache_policy=NO_CACHE, persist_result=False)
def derive_memberships(run: Run) -> None:
    """Bring member_lists up to what has been extracted."""

    def derive(connection: psycopg.Connection) -> None:
        derived = derive_member_lists(connection, run.schema, run.integration_id)
        counts = {
            "rows_read": derived.rows_read,
            "inserted": derived.inserted,
            "updated": derived.updated,
            "unchanged": derived.rows_read - derived.inserted - derived.updated,
        }
        ledger.add_counts(connection, run.schema, run.id, run.integration_id, {"member_lists": counts})

    patiently(run, derive)


@task(task_run_name="finish", cache_policy=NO_CACHE, persist_result=False)
def finish(run: Run, state: str, sentences: Sequence[str]) -> None:
    """Close the run: complete, partial (a scope is missing) or failed (a part could not be read or stored)."""
    message = " ".join(sentences) or None
    patiently(run, lambda connection: ledger.close_run(connection, run.schema, run.id, state, message))
