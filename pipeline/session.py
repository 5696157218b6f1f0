"""One process's connections: to the warehouse, to the API, and to the claims that it holds. Knows no stream."""

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import ceil
from time import monotonic
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import psycopg
from psycopg.errors import LockNotAvailable
from pydantic import SecretStr
from pyrate_limiter.abstracts.store import StateStore

from klaviyo_pg.errors import BadSettings, Busy, DatabaseAway, DatabaseUnusable, KlaviyoPgError
from klaviyo_pg.klaviyo.client import Traffic
from klaviyo_pg.klaviyo.dialect import Dialect
from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.klaviyo.pace import Pace
from klaviyo_pg.klaviyo.page_sizes import PageSizes
from klaviyo_pg.klaviyo.people_cache import PeopleCache
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import accounts, claims, clock, embedded, run_ledger
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.connect import Database, connect, create_engine, shares_sessions, translated
from klaviyo_pg.postgres.limits import WarehouseStore
from klaviyo_pg.postgres.page_sizes import WarehousePageSizes
from klaviyo_pg.postgres.partitions import Partitioning
from klaviyo_pg.settings import Settings
from pipeline.addresses import AddressCache
from pipeline.clocks import Clocks
from pipeline.progress import Progress
from pipeline.stop import StopFlag

_FIRST_ATTEMPTS = 3  # of a run's first request: a wrong address should be reported at once
_WORKERS, _MAX_WORKERS = 4, 16
_POLL_SECONDS = 0.5  # between two looks at the claims

Result = TypeVar("Result")
OpenSource = Callable[[Settings, Pace, PageSizes], Source]
Clock = Callable[[], datetime]


def present() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


@dataclass
class _Claim:
    integration_id: str
    what: str
    connection: psycopg.Connection
    server_session: int
    is_vital: bool


class ReadingProcesses(Protocol):
    """Other processes that read chunks of history for a session."""

    def extract(self, run: Any, chunks: Any, metrics: Any, attempt: int) -> Any:
        """Read chunks into the spool, and return their outcomes."""
        ...


class ClaimLost(KlaviyoPgError):
    """The database ended the session that holds the claim of this run. Rerun to resume."""


class Session:
    """The objects that the threads of a run share: database, API clients and their pace, claims, stop flag, progress.

    `open_source` makes an API client, and `now` returns the time; tests pass others. Readers make their batches one
    after the other, in turns (`batch_turn`): those that did it at the same time would also wait for the API at the same
    time. Use the session as a context manager: leaving it releases its claims and closes its database connections.
    """

    def __init__(
        self,
        settings: Settings,
        open_source: OpenSource = open_source,
        now: Clock = present,
        progress: Progress | None = None,
    ) -> None:
        self.settings, self.now = settings, now
        self.id = str(uuid.uuid4())
        self.stop, self.progress, self.people = StopFlag(), progress or Progress(), PeopleCache()
        self.addresses = AddressCache()
        self.partitioning = Partitioning()
        self.batch_turn = threading.Lock()
        self._open_source = open_source
        self._claims: list[_Claim] = []
        self._taken: Busy | None = None
        self._renewed_at = 0.0
        self._lock, self._claims_lock = threading.RLock(), threading.RLock()
        self._database: Database | None = None
        self._readers: ReadingProcesses | None = None
        self._traffic_of_others: dict[int, Traffic] = {}
        self._sources: list[Source] = []
        self._free_sources: list[Source] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release_claims()
        if self._database is not None:
            self._database.close()

    @cached_property
    def _url(self) -> str:
        return embedded.warehouse_url(self.settings)

    @property
    def database(self) -> Database:
        """The warehouse: DATABASE_URL, or the embedded Postgres, which is started if necessary."""
        with self._lock:
            if self._database is None:
                engine = create_engine(self._url, self.settings.warehouse_schema)
                self._database = Database(engine, lambda: self.stop.is_requested)
            return self._database

    def check_claims_work(self) -> None:
        """Raise BadSettings if claims would not keep other runs out, as with a pooler in transaction mode."""
        if self.settings.database_url is not None and shares_sessions(self._url):
            raise BadSettings(
                "DATABASE_URL leads to a connection pooler in transaction or statement mode, where the locks that keep "
                "runs apart do not work: use a direct connection or a pooler in session mode."
            )

    @cached_property
    def _pace(self) -> Pace:
        """The pace of this account: one for all threads, kept in the warehouse for all processes and machines."""
        settings = self.settings

        def store(endpoint: str) -> StateStore:
            return WarehouseStore(self.database, settings.warehouse_schema, settings.klaviyo_integration, endpoint)

        return Pace(settings.rate_limit_share, settings.retry_budget_seconds, store, self.stop.check)

    @cached_property
    def _page_sizes(self) -> PageSizes:
        """The page sizes that the API accepts: learned once, and kept in the warehouse for all processes."""
        settings = self.settings

        def open_store() -> WarehousePageSizes:
            return WarehousePageSizes(self.database, settings.warehouse_schema, settings.klaviyo_integration)

        return PageSizes(open_store)

    def first_source(self) -> Source:
        """Open an API client that gives up soon, for the first request of a run."""
        attempts = min(_FIRST_ATTEMPTS, self.settings.request_attempts)
        return self._open(self.settings.model_copy(update={"request_attempts": attempts}))

    @contextmanager
    def source(self) -> Iterator[Source]:
        """Lend an API client. No other thread uses it until it is returned."""
        with self._lock:
            lent = self._free_sources.pop() if self._free_sources else None
        lent = lent or self._open(self.settings)
        try:
            yield lent
        finally:
            with self._lock:
                self._free_sources.append(lent)

    def _open(self, settings: Settings) -> Source:
        with self._lock:
            opened = self._open_source(settings, self._pace, self._page_sizes)
            self._sources.append(opened)
        return opened

    @property
    def clock_tolerance(self) -> timedelta:
        """The largest difference of clocks that a run accepts."""
        return timedelta(seconds=self.settings.clock_tolerance_seconds)

    def compare_clocks(self, database: datetime) -> Clocks:
        """Return the time on the clocks of this machine, the database and the API.

        Raises ClocksDiffer if they differ by more than CLOCK_TOLERANCE_SECONDS.
        """
        clocks = Clocks(self.now(), database, self._api_time)
        clocks.check(self.clock_tolerance)
        return clocks

    @property
    def _api_time(self) -> datetime | None:
        """The API's time; the latest one, because a response only shows a time that has passed."""
        with self._lock:
            return max((time for source in self._sources if (time := source.api_time)), default=None)

    @property
    def traffic(self) -> Traffic:
        """The requests that this session has sent, with those of its reading processes."""
        with self._lock:
            own = [source.traffic for source in self._sources]
            return Traffic.total([*own, *self._traffic_of_others.values()])

    def note_traffic(self, process: int, traffic: Traffic) -> None:
        """Note the requests that a reading process has sent so far."""
        with self._lock:
            self._traffic_of_others[process] = traffic

    @property
    def readers(self) -> ReadingProcesses | None:
        """The processes that read history for this session; None while its own threads do."""
        return self._readers

    @contextmanager
    def reading_through(self, readers: ReadingProcesses) -> Iterator[None]:
        """Have other processes read history while the block runs, or until `read_in_threads`."""
        self._readers = readers
        try:
            yield
        finally:
            self.read_in_threads()

    def read_in_threads(self) -> None:
        """Read history in this process from now on."""
        self._readers = None

    @property
    def can_be_rebuilt(self) -> bool:
        """True if another process can open the same account from the settings."""
        return self._open_source is open_source

    def rebuilding_settings(self) -> Settings:
        """Return the settings with which another process reaches the same warehouse, which this one keeps running."""
        return self.settings.model_copy(update={"database_url": SecretStr(self._url)})

    @cached_property
    def dialect(self) -> Dialect:
        """The traits of the account's dialect."""
        with self.source() as source:
            return source.dialect

    @property
    def requests_per_minute(self) -> int | None:
        """The API's limit for event requests; None if it was never published."""
        return self.dialect.event_requests_per_minute

    def worker_count(self, answer_seconds: float = 0.0, requests_per_minute: int | None = None) -> int:
        """Return how many chunks to read at once: CONCURRENCY, or as many as keep the API's limit busy.

        `answer_seconds` is how long a small answer took while nothing else was asked for; an answer with events takes
        about twice as long. Without a known limit: four.
        """
        if self.settings.concurrency is not None:
            return self.settings.concurrency
        if requests_per_minute is None:
            return _WORKERS
        return max(_WORKERS, min(_MAX_WORKERS, ceil(requests_per_minute / 60 * 2 * answer_seconds)))

    def claim(self, integration_id: str, what: str, is_vital: bool = True) -> None:
        """Claim something of an account, such as a flow, until `release_claims` or the end of the process.

        A claim is a lock that Postgres drops with its connection. If another process takes it then, this session stops,
        unless the claim is not vital: then it no longer holds the claim. Raises Busy where another process holds it.

        An attempt to begin something that failed may have left its claim: that is released.
        """
        with self._claims_lock, translated():
            for each in [each for each in self._claims if each.what == what]:
                self._end(each)
                self._claims.remove(each)
            self._claims.append(self._claimed(integration_id, what, is_vital))

    def _end(self, claim: _Claim) -> None:
        """Release a claim, also one whose session only the server still has."""
        try:
            claims.release(claim.connection)
        except psycopg.Error:
            with closing(connect(self._url, self.settings.warehouse_schema, autocommit=True)) as connection:
                account = Account(connection, self.settings.warehouse_schema, claim.integration_id)
                claims.end_holder(account, claim.what, claim.server_session)

    def _claimed(self, integration_id: str, what: str, is_vital: bool, lost: int | None = None) -> _Claim:
        """Claim something on a new connection. `lost` is the server's session that held the claim before.

        Raises Busy where another process holds the claim, or has taken what was lost, and DatabaseAway where that
        cannot be known yet.
        """
        connection = connect(self._url, self.settings.warehouse_schema, autocommit=True)
        account = Account(connection, self.settings.warehouse_schema, integration_id)
        try:
            if lost is not None:
                claims.end_holder(account, what, lost)
            is_claimed = _try_claim(account, what)
            is_taken = lost is not None and run_ledger.is_taken(account, what, self.id)
            if is_claimed and not is_taken:
                return _Claim(integration_id, what, connection, claims.session_of(connection), is_vital)
            may_come_back = lost is not None and not is_taken and _has_takers(account, what)
        except BaseException:
            connection.close()
            raise
        claims.release(connection)
        if may_come_back:
            raise DatabaseAway(
                f"Another session of the database still holds the lock of this {what} run of "
                f"{self.settings.klaviyo_integration}. Rerun later to resume."
            )
        raise claims.busy(self.settings.klaviyo_integration, what)

    def renew_claims(self) -> None:
        """Take again the claims that were lost with their connection, for example when the database restarted.

        Raises DatabaseAway while the database accepts no connection, and Busy where another process has taken a vital
        claim, even if it has released it since; then this session stops, and never takes the claim again, because the
        other process has read, or forgotten, what this one would continue.
        """
        with self._claims_lock, translated():
            self.check_claims()
            for each in tuple(self._claims):
                if not self._holds(each):
                    each.connection.close()
                    at = self._claims.index(each)
                    self._claims[at : at + 1] = self._claimed_again(each)

    def keep_claims(self) -> None:
        """Renew the claims, unless that was done a moment ago, as far as the database allows it.

        While it is away, nothing is lost that another process could take. Raises Busy like `renew_claims`.
        """
        if monotonic() - self._renewed_at >= _POLL_SECONDS:
            with suppress(DatabaseUnusable):  # which the next transaction reports
                self.renew_claims()
            self._renewed_at = monotonic()

    def _holds(self, claim: _Claim) -> bool:
        account = Account(claim.connection, self.settings.warehouse_schema, claim.integration_id)
        try:
            return claims.is_held_by(account, claim.what, claim.server_session)
        except psycopg.OperationalError:
            return False

    def _claimed_again(self, claim: _Claim) -> list[_Claim]:
        """Return the claim, taken again; nothing if another process has one that is not vital."""
        try:
            return [self._claimed(claim.integration_id, claim.what, claim.is_vital, claim.server_session)]
        except Busy:
            if not claim.is_vital:
                return []
            self._taken = Busy(
                f"The database ended the session of this {claim.what} run of {self.settings.klaviyo_integration}, and "
                "another run has taken over: wait for it to finish."
            )
            self.stop.request(self._taken)
            raise self._taken from None

    def check_claims(self) -> None:
        """Raise Busy if another process has taken a claim of this session."""
        if self._taken is not None:
            raise Busy(str(self._taken))

    @property
    def has_lost_claims(self) -> bool:
        """True if another process has taken a claim of this session, and with it the run."""
        return self._taken is not None

    def hold_claims(self, connection: psycopg.Connection) -> datetime:
        """Keep the claims of this session for a transaction: until it ends, no other process can begin its work.

        Return the database's time at the start of the transaction. Raises ClaimLost if a claim was lost, and Busy if
        another process has taken it.
        """
        self.check_claims()
        time = None
        for each in tuple(self._claims):
            account = Account(connection, self.settings.warehouse_schema, each.integration_id)
            time = claims.hold_for_transaction(account, each.what, each.server_session)
            if time is None:
                raise ClaimLost
        return time or clock.present(connection)

    def holds_claim(self, what: str) -> bool:
        """Return whether this session holds a claim of this name."""
        return any(each.what == what for each in self._claims)

    def release_claim(self, what: str) -> None:
        """Release the claims of this name."""
        with self._claims_lock:
            released = [each for each in self._claims if each.what == what]
            self._claims = [each for each in self._claims if each.what != what]
        for each in released:
            _release(each)

    def release_claims(self) -> None:
        """Release all claims."""
        while self._claims:
            _release(self._claims.pop())


def _try_claim(account: Account, what: str) -> bool:
    """Claim something. Returns False if another session holds it, or a transaction of the last holder has not ended."""
    try:
        if not claims.try_claim(account, what):
            return False
        claims.wait_for_last_holder(account, what)
    except LockNotAvailable:
        return False
    return True


def _has_takers(account: Account, what: str) -> bool:
    """Return whether each run that claims this records, a moment later, that it has taken it."""
    return what in claims.FLOWS and accounts.stays(account)


def _release(claim: _Claim) -> None:
    with suppress(psycopg.Error):
        claims.release(claim.connection)
