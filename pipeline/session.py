"""One process's connections: to the warehouse, to the API, and to the claims that it holds. Knows no stream."""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import ceil
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import psycopg
from pydantic import SecretStr
from pyrate_limiter.abstracts.store import StateStore

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.klaviyo.dialect import Dialect
from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.klaviyo.pace import Pace
from klaviyo_pg.klaviyo.page_sizes import PageSizes
from klaviyo_pg.klaviyo.people_cache import PeopleCache
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres.connect import Database, connect, create_engine, shares_sessions
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.postgres.limits import WarehouseStore
from klaviyo_pg.postgres.page_sizes import WarehousePageSizes
from klaviyo_pg.postgres.partitions import Partitioning
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.settings import Settings
from klaviyo_pg.traffic import Traffic
from pipeline.addresses import AddressCache
from pipeline.clocks import Clocks
from pipeline.held_claims import HeldClaims
from pipeline.outcome import Outcome
from pipeline.progress import Progress
from pipeline.stop import StopFlag
from transforms.events import Metrics

if TYPE_CHECKING:  # a run begins with a session
    from pipeline.runs import Run

_FIRST_ATTEMPTS = 3  # of a run's first request: a wrong address should be reported at once
_WORKERS, _MAX_WORKERS = 4, 16

OpenSource = Callable[[Settings, Pace, PageSizes], Source]
Clock = Callable[[], datetime]


def present() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class ReadingProcesses(Protocol):
    """Other processes that read chunks of history for a session."""

    def extract(
        self, run: "Run", chunks: Sequence[BackfillChunk], metrics: Metrics, attempt: int
    ) -> tuple[Outcome[BackfillChunk], ...]:
        """Read chunks into the spool, and return their outcomes."""
        ...


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
        self.claims = HeldClaims(settings, self.id, self.stop, self._connect)
        self.addresses = AddressCache()
        self.partitioning = Partitioning()
        self.batch_turn = threading.Lock()
        self._open_source = open_source
        self._lock = threading.RLock()
        self._database: Database | None = None
        self._readers: ReadingProcesses | None = None
        self._traffic_of_others: dict[int, Traffic] = {}
        self._sources: list[Source] = []
        self._free_sources: list[Source] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.claims.release_all()
        if self._database is not None:
            self._database.close()

    @cached_property
    def _url(self) -> str:
        return embedded.warehouse_url(self.settings)

    def _connect(self) -> psycopg.Connection:
        return connect(self._url, self.settings.warehouse_schema, autocommit=True)

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
