"""The two edges of a process: one engine for the warehouse, and for each thread one connection to the API.

They are made from settings and kept, since neither may travel between tasks.
"""

import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import psycopg
import sqlalchemy
from prefect_sqlalchemy import ConnectionComponents, SqlAlchemyConnector
from pyrate_limiter.abstracts.store import StateStore

from klaviyo_pg.errors import BadSettings, Busy
from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.klaviyo.http import Traffic
from klaviyo_pg.klaviyo.known import KnownPeople
from klaviyo_pg.klaviyo.limits import Pace
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import claims, embedded
from klaviyo_pg.postgres.connect import connect, in_utc
from klaviyo_pg.postgres.limits import WarehouseStore
from klaviyo_pg.settings import Settings
from tasks import stopping

_CONNECT_TIMEOUT = "10"  # seconds
_SIDE_BY_SIDE, _MOST_SIDE_BY_SIDE = 4, 16
_CONNECTIONS = 8  # that are kept open; more are opened while they are needed
_FIRST_ATTEMPTS = 3  # of the first request of a run: a wrong address should be told at once
_of_thread = threading.local()
_claims: list["_Claim"] = []
_people = ("", KnownPeople())
_opened: list[Source] = []
_paces: dict[tuple[str, str, str], Pace] = {}
_one_pace = threading.Lock()


@dataclass
class _Claim:
    """What this process has claimed of an account, and the connection that keeps it."""

    settings: Settings
    integration_id: str
    what: str
    connection: psycopg.Connection


def engine(settings: Settings) -> sqlalchemy.Engine:
    """The engine for the warehouse: DATABASE_URL, or the embedded Postgres."""
    return _engine(embedded.warehouse_url(settings), _CONNECTIONS)


@lru_cache(maxsize=8)
def _engine(url: str, connections: int) -> sqlalchemy.Engine:
    try:
        given = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise BadSettings("DATABASE_URL is not a URL such as postgresql://user:password@host:5432/database.") from None
    components = ConnectionComponents(
        driver="postgresql+psycopg",
        database=given.database or "",
        username=given.username,
        password=given.password,
        host=given.host,
        port=given.port,
        query={
            "connect_timeout": _CONNECT_TIMEOUT,
            "application_name": "klaviyo-pg",
            **{name: value if isinstance(value, str) else value[-1] for name, value in given.query.items()},
        },
    )
    connector = SqlAlchemyConnector(connection_info=components)
    made = connector.get_engine(pool_size=connections, max_overflow=64, pool_pre_ping=True, hide_parameters=True)
    assert isinstance(made, sqlalchemy.Engine)
    sqlalchemy.event.listen(made, "connect", lambda connection, _: in_utc(connection))
    return made


def claim(settings: Settings, integration_id: str, what: str) -> None:
    """Let nothing else of this name and account begin, on any machine, until `release` or the end of the process.

    Raises Busy where another one is under way. The claim is a lock that Postgres drops with the connection.
    """
    _claims.append(_Claim(settings, integration_id, what, _claimed(settings, integration_id, what)))


def _claimed(settings: Settings, integration_id: str, what: str) -> psycopg.Connection:
    connection = connect(embedded.warehouse_url(settings), autocommit=True)
    if not claims.claim(connection, settings.warehouse_schema, integration_id, what):
        connection.close()
        raise Busy(f"A {what} run of {settings.klaviyo_integration} is under way already: wait for it, or end it.")
    return connection


def keep_claims() -> None:
    """Take again what this process had claimed and has lost with its connection, as when the database was restarted.

    While the database is away nothing is lost that somebody else could take. Raises Busy where somebody has.
    """
    for each in _claims:
        try:
            each.connection.execute("SELECT")
        except psycopg.OperationalError:
            with suppress(psycopg.OperationalError):
                each.connection = _claimed(each.settings, each.integration_id, each.what)


def has_claimed(what: str) -> bool:
    """Whether this process is the one that has claimed it."""
    return any(each.what == what for each in _claims)


def release() -> None:
    """Drop the claims of this process."""
    while _claims:
        with suppress(psycopg.Error):
            claims.release(_claims.pop().connection)


def known_people(run_id: str) -> KnownPeople:
    """Those whom this process has read in this run."""
    global _people
    known_run, people = _people
    if known_run != run_id:
        _people = (run_id, people := KnownPeople())
    return people


def forget_people() -> None:
    """What a thread has read could not be stored; when it is read again, its people have to be new again."""
    global _people
    _people = ("", KnownPeople())


def source(settings: Settings, first_contact: bool = False) -> Source:
    """This thread's connection to the API; with `first_contact` one that gives up soon."""
    if first_contact:
        attempts = min(_FIRST_ATTEMPTS, settings.request_attempts)
        return open_source(settings.model_copy(update={"request_attempts": attempts}), _pace(settings))
    known: dict[tuple[object, ...], Source] = _of_thread.__dict__.setdefault("sources", {})
    key = (settings.klaviyo_dialect, settings.klaviyo_base_url, settings.klaviyo_api_key, settings.request_attempts)
    if key not in known:
        known.clear()
        known[key] = open_source(settings, _pace(settings))
        _opened.append(known[key])
    return known[key]


def _pace(settings: Settings) -> Pace:
    """The pace of this account, the same for all threads, kept in the warehouse for all processes and machines."""

    def store(endpoint: str) -> StateStore:
        return WarehouseStore(engine(settings), settings.warehouse_schema, settings.klaviyo_integration, endpoint)

    key = (settings.klaviyo_base_url, settings.warehouse_schema, settings.klaviyo_integration)
    with _one_pace:
        if key not in _paces:
            _paces[key] = Pace(settings.rate_limit_share, settings.retry_budget_seconds, store, stopping.check)
        return _paces[key]


def side_by_side(settings: Settings, answer_seconds: float = 0.0, requests_a_minute: int | None = None) -> int:
    """How many parts to read at once: CONCURRENCY, or as many as keep the API's limit busy at the pace of its answers.

    `answer_seconds` is that of a small answer while nothing else was asked for; one with events takes about twice as
    long. Without a limit: four.
    """
    if settings.concurrency is not None:
        return settings.concurrency
    if requests_a_minute is None:
        return _SIDE_BY_SIDE
    return max(_SIDE_BY_SIDE, min(_MOST_SIDE_BY_SIDE, ceil(requests_a_minute / 60 * 2 * answer_seconds)))


def traffic() -> Traffic:
    """Everything that this process has asked of the API so far."""
    return Traffic.total(source.traffic for source in list(_opened))
