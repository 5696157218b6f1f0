"""Checks before a run begins: the key, the names in the settings, the account's name, its protection.

Each check raises a UserError with a sentence that names the setting to change. What stops no run is a warning: a
sentence that is returned. All of them only read.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import psycopg

from klaviyo_pg import rows, schemas
from klaviyo_pg.catalogue import TABLES, VIEWS
from klaviyo_pg.errors import (
    BadAnswer,
    BadSettings,
    DatabaseUnusable,
    MissingScope,
    NotFound,
    Refused,
    Unavailable,
)
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import accounts, claims, lookups, queries, schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.accounts import RegisteredAccount
from klaviyo_pg.postgres.views import time_zones
from klaviyo_pg.settings import Settings
from pipeline.batch import as_written
from transforms.personal import shown_name
from transforms.routing import KnownMetric, check_destinations, check_metric, selected

KnownMetrics = Sequence[KnownMetric]
_IS_READ_ONLY = "SELECT current_setting('transaction_read_only')::boolean"
_STATE_OF_SCHEMAS = """
SELECT nspname, has_schema_privilege(nsp.oid, 'USAGE') AND has_schema_privilege(nsp.oid, 'CREATE'), (
    SELECT min(rel.relname) FROM pg_catalog.pg_class AS rel
    LEFT JOIN pg_catalog.pg_inherits ON inhrelid = rel.oid
    LEFT JOIN pg_catalog.pg_class AS whole ON whole.oid = inhparent
    WHERE rel.relnamespace = nsp.oid AND rel.relkind IN ('r', 'p', 'v') AND NOT pg_has_role(rel.relowner, 'USAGE')
    AND coalesce(whole.relname, rel.relname) = ANY(%(relations)s)
) FROM pg_catalog.pg_namespace AS nsp WHERE nspname = ANY(%(schemas)s) ORDER BY nspname
"""
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_VERIFIED = frozenset({"verify-ca", "verify-full"})


def fetch_account(source: Source, settings: Settings, warn: Callable[[str], None]) -> rows.Account | None:
    """Ask for the key's account. Raises BadSettings where it is not the configured one.

    Returns None if the dialect has no accounts, or if the key may not ask: then `warn` is called with a sentence.
    """
    configured = settings.klaviyo_account_id
    try:
        answered = source.account()
    except NotFound:
        raise  # as from a host that is not the API
    except (MissingScope, Refused) as error:
        warn(f"{error} Until this is corrected, the column _account_id stays as it is.")
        answered = None
    if answered and configured and answered.id != configured:
        raise BadSettings(f"KLAVIYO_ACCOUNT_ID is {configured}, but the API key belongs to account {answered.id}.")
    return answered


def fetch_account_id(source: Source, settings: Settings, warn: Callable[[str], None]) -> str | None:
    """Ask for the id of the key's account, as `fetch_account` does. Without an answer, return the configured one."""
    answered = fetch_account(source, settings, warn)
    return answered.id if answered else settings.klaviyo_account_id


def check_registration(connection: psycopg.Connection, settings: Settings, account_id: str | None) -> str | None:
    """Raise BadSettings if the account's name or protection is another one in this warehouse.

    Raise it also if the account is registered under another name. Return its ID, which an earlier run may have stored.
    """
    name = settings.klaviyo_integration
    stored = accounts.find(connection, settings.warehouse_schema, name)
    if stored is not None:
        if stored.account_id and account_id and stored.account_id != account_id:
            raise BadSettings(
                f"KLAVIYO_INTEGRATION {name} is account {stored.account_id} in this warehouse, but the API key belongs "
                f"to account {account_id}: choose another name for this account."
            )
        _check_protection(settings, stored)
        account_id = account_id or stored.account_id
    if account_id and (stored is None or stored.account_id is None):
        _check_name_is_the_only_one(connection, settings, account_id)
    return account_id


def _check_name_is_the_only_one(connection: psycopg.Connection, settings: Settings, account_id: str) -> None:
    """Refuse a second name of an account: every total over both would count its rows twice."""
    name, others = settings.klaviyo_integration, accounts.names(connection, settings.warehouse_schema, account_id)
    if others := [each for each in others if each != name]:
        raise BadSettings(
            f"This warehouse has account {account_id} already, as {others[0]}, and would count everything twice. Set "
            f"KLAVIYO_INTEGRATION to {others[0]}, or rename the account: klaviyo-pg rename {others[0]} {name}."
        )


def _check_protection(settings: Settings, stored: RegisteredAccount) -> None:
    """Refuse another mode or salt than that of the rows that are stored: it would mix two kinds of rows."""
    name, elsewhere = settings.klaviyo_integration, "set WAREHOUSE_SCHEMA to a new schema and sync everything again"
    if settings.personal_data != stored.personal_data:
        raise BadSettings(
            f"PERSONAL_DATA is {settings.personal_data}, but the rows of {name} in this warehouse were stored with "
            f"{stored.personal_data}: set it to {stored.personal_data}, or {elsewhere}."
        )
    if settings.salt_digest != stored.salt_digest:
        raise BadSettings(
            f"PERSONAL_DATA_SALT differs from the one that the rows of {name} in this warehouse were stored with: use "
            f"that one, or {elsewhere}."
        )


def check_stays(account: Account, name: str) -> None:
    """Raise BadSettings if the account is being removed from the warehouse."""
    if not accounts.stays(account):
        raise BadSettings(
            f"{name} is being removed from this warehouse. Run klaviyo-pg remove {name} to finish that, or set "
            "KLAVIYO_INTEGRATION to another name."
        )


def check_readable_properties(account: Account, settings: Settings) -> None:
    """Raise BadSettings if READABLE_PROPERTIES differs from that of the run that began last."""
    if settings.readable_digest != accounts.readable_digest(account):
        raise BadSettings(
            "READABLE_PROPERTIES differs from that of the run that this belongs to: set the same names everywhere."
        )


def stored_metrics(connection: psycopg.Connection, settings: Settings) -> list[KnownMetric]:
    """Return the metrics of the account that are stored, with names as the settings have them.

    There are none if the account is not registered yet.
    """
    stored = accounts.find(connection, settings.warehouse_schema, settings.klaviyo_integration)
    return [] if stored is None else _metrics_of(connection, settings, stored)


def _metrics_of(connection: psycopg.Connection, settings: Settings, stored: RegisteredAccount) -> list[KnownMetric]:
    rows = lookups.metrics(Account(connection, settings.warehouse_schema, stored.integration_id))
    written = as_written(settings, _named_metrics(settings))
    return [KnownMetric(row.id, written(row.name)) for row in rows]


class MetricsToCheck(NamedTuple):
    """The stored metrics that checks need, with names as the settings have them.

    `must_identify_account`: the account has to be recognized by them, because its ID cannot be compared.
    """

    metrics: KnownMetrics = ()
    must_identify_account: bool = False


def metrics_to_check(
    connection: psycopg.Connection, settings: Settings, described: rows.Account | None
) -> MetricsToCheck:
    """Return the stored metrics that checks of the settings and of the account need; none if the account is new."""
    stored = accounts.find(connection, settings.warehouse_schema, settings.klaviyo_integration)
    if stored is None:
        return MetricsToCheck()
    must_identify_account = not (described and stored.account_id)
    if not (must_identify_account or _named_metrics(settings)):
        return MetricsToCheck()
    return MetricsToCheck(_metrics_of(connection, settings, stored), must_identify_account)


def check_recognized(source: Source, settings: Settings, stored: KnownMetrics) -> None:
    """Raise BadSettings if the source lists metrics, but none of those that are stored: no two accounts share one.

    A list that is not complete proves nothing.
    """
    if not stored:
        return
    try:
        pages = list(source.metrics())
    except (MissingScope, Refused, BadAnswer, Unavailable):  # the run reads them again, and reports it
        return
    listed = {row.id for page in pages for row in page.rows}
    is_complete = not any(page.incomplete or page.rejects for page in pages)
    if listed and is_complete and listed.isdisjoint(metric.id for metric in stored):
        name = settings.klaviyo_integration
        raise BadSettings(
            f"The API key belongs to another account than {name}: it has none of the metrics that are stored as those "
            f"of {name}. Use the key of that account, or set KLAVIYO_INTEGRATION to another name."
        )


def _named_metrics(settings: Settings) -> set[str]:
    metrics = {name.removeprefix("-") for name in settings.metrics}
    return metrics | settings.destinations.keys() | {*filter(None, [settings.report_metric])}


def check_metric_names(source: Source, settings: Settings, stored: KnownMetrics) -> None:
    """Raise BadSettings if METRICS, DESTINATIONS or REPORT_METRIC names a metric that the account does not have.

    Raise it also if DESTINATIONS names a table that is no event table.

    The source is asked only for names that are not stored. If it refuses, reading the metrics will report that.
    """
    check_destinations(settings.destinations)
    names = {name for metric in stored for name in metric}
    if _named_metrics(settings) <= names:
        return
    try:
        existing = [KnownMetric(row.id, row.name) for page in source.metrics() for row in page.rows]
    except (MissingScope, Refused):
        return
    check_named_metrics(settings, [*stored, *existing])


def check_named_metrics(settings: Settings, metrics: KnownMetrics) -> None:
    """Raise BadSettings if METRICS, DESTINATIONS or REPORT_METRIC names a metric that is not among these."""
    selected(metrics, settings.metrics)
    for name in settings.destinations:
        check_metric("DESTINATIONS", name, metrics)
    check_metric("REPORT_METRIC", settings.report_metric, metrics)


def check_writable(connection: psycopg.Connection, settings: Settings) -> None:
    """Raise DatabaseUnusable if the database is read-only, or if a schema is missing and may not be created."""
    if queries.scalar(connection, _IS_READ_ONLY):
        raise DatabaseUnusable("The database is read-only. Set DATABASE_URL to the primary server, not a standby.")
    schema.check_schemas(connection, settings.warehouse_schema)


def check_ownership(connection: psycopg.Connection, settings: Settings) -> None:
    """Raise DatabaseUnusable if the user may not create tables in a schema that exists.

    Raise it also if another user owns a table or view of the warehouse. What else is in its schemas does not matter.
    """
    relations = [*(table.name for table in TABLES), *(view.name for view in VIEWS)]
    values = {"schemas": schemas.both(settings.warehouse_schema), "relations": relations}
    for name, may_create, of_others in connection.execute(_STATE_OF_SCHEMAS, values):
        if not may_create:
            raise DatabaseUnusable(
                f"The database user may not create tables in the schema {name}. Grant it CREATE on the schema, or set "
                "DATABASE_URL to another user."
            )
        if of_others:
            raise DatabaseUnusable(
                f"The database user does not own the tables of the schema {name}, such as {of_others}. Set "
                "DATABASE_URL to their owner, or give the user the owner's role."
            )


def encryption_warning(connection: psycopg.Connection) -> str | None:
    """Return a sentence if others could read or change what is sent to the database; None if not."""
    host = connection.info.host
    if host.startswith("/") or host in _LOOPBACK:
        return None
    if not connection.pgconn.ssl_in_use:
        return "The connection to the database is not encrypted. Add sslmode=verify-full to DATABASE_URL."
    if connection.info.get_parameters().get("sslmode") in _VERIFIED:
        return None
    return (
        "The certificate of the database server is not verified. Add sslmode=verify-full to DATABASE_URL, and "
        "sslrootcert=system if its certificate is from a public authority."
    )


def time_zone_warning(connection: psycopg.Connection, name: str | None) -> str | None:
    """Return a sentence if the database does not have the account's time zone; None if it has, or for None."""
    if name is None or time_zones.exists(connection, name):
        return None
    return (
        f"The database does not have the account's time zone, {shown_name(name)}: views use days in UTC instead. "
        "Update the time zone data of the database server."
    )


def check_no_run_in_progress(connection: psycopg.Connection, settings: Settings, flow: str) -> None:
    """Raise Busy if a run of this flow of the account is in progress."""
    stored = accounts.find(connection, settings.warehouse_schema, settings.klaviyo_integration)
    if stored is None:
        return
    account = Account(connection, settings.warehouse_schema, stored.integration_id)
    if claims.held(account, [flow]):
        raise claims.busy(settings.klaviyo_integration, flow)
