"""`python -m benchmarks.event_path`: the loader's processor time per event, by stage, from a page's bytes to COPY.

Reads and loads chunks of history in this process, one after the other in one thread, with the units that a backfill
runs. The account's server and Postgres are other processes, so that their time does not count. Nested stages are taken
out of the stages around them. All people on the pages have been met before, unless --new-people is given.
"""

import argparse
import importlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

from benchmarks.comparison import table
from benchmarks.fake_api import PAGE, Served, arguments, options_of, serving
from benchmarks.workbench import readable_folder
from klaviyo_pg.klaviyo.people_cache import PendingPeople
from klaviyo_pg.postgres.ledgers import backfill_ledger
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.settings import Settings
from pipeline import runs
from pipeline.backfill.reading import extract, load
from pipeline.chunk_reading import read_side_by_side
from pipeline.job import Job
from pipeline.outcome import Tally
from pipeline.plan import dimension_chunks
from pipeline.runs import Run, transact
from pipeline.session import Session
from pipeline.streams.events import stored_metrics
from pipeline.workers import ThreadWorkers
from tests.runs import Published

_LOG = logging.getLogger(__name__)
_STAGES = {
    "receive a response": ["klaviyo_pg.klaviyo.client:Client._send"],
    "rest of the request": ["klaviyo_pg.klaviyo.client:Client._answer"],
    "decode the page": ["klaviyo_pg.klaviyo.documents:DocumentDecoder.decode"],
    "columns of the page": ["klaviyo_pg.klaviyo.current.rows:event_page"],
    "rows for each table": ["pipeline.streams.events:event_batch"],
    "protect personal data": ["pipeline.read:protect"],
    "write the spool": ["pipeline.spool:SpooledChunk.put"],
    "read the spool": ["pipeline.spool:_unpacked", "pipeline.backfill.reading:joined"],
    "frames as text for COPY": ["klaviyo_pg.postgres.load:as_copy_text"],
    "COPY and merge": ["pipeline.store:merge"],
    "rest of the transaction": ["pipeline.store:transact"],
}
_REST = "everything else"


class Meter:
    """Adds up the processor time of stages, each without those that it contains."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = process_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block for a stage."""
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def _switch(self) -> None:
        now = process_time()
        self.seconds[self._open[-1] if self._open else ""] += now - self._since
        self._since = now

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time counts for a stage."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return timed

    def install(self) -> None:
        """Let the functions of all stages be measured."""
        for name, targets in _STAGES.items():
            for target in targets:
                module, _, path = target.partition(":")
                owner: Any = importlib.import_module(module)
                *parents, attribute = path.split(".")
                for parent in parents:
                    owner = getattr(owner, parent)
                setattr(owner, attribute, self.wrapped(name, getattr(owner, attribute)))


class Setup(NamedTuple):
    """A run that has begun, and the chunks that it reads."""

    session: Session
    run: Run
    chunks: list[BackfillChunk]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    arguments(parser)
    parser.add_argument("--new-people", action="store_true", help="let the people be new to this process")
    parser.add_argument("--protect", choices=["keep", "hash", "drop"], default="keep", help="PERSONAL_DATA")
    parser.add_argument("--profile", action="store_true", help="print where Python spends its time instead")
    parsed = parser.parse_args()
    options = options_of(parsed)
    with readable_folder() as folder, serving(options) as served:
        settings = _settings(served, folder, parsed.protect)
        with Session(settings) as session:
            setup = _begun(session, served, options.pages_per_metric)
            if not parsed.new_people:
                _meet_people(setup)
            if parsed.profile:
                _profile(setup)
            else:
                print(_table(_measured(setup), options.pages_per_metric * PAGE * options.metrics))


def _settings(served: Served, folder: Path, protection: str) -> Settings:
    return Settings(
        klaviyo_api_key="pk_benchmark",
        klaviyo_base_url=served.url,
        database_url=embedded.url(folder),
        data_dir=folder,
        personal_data=protection,
        personal_data_salt="a salt of a benchmark",
    )


def _begun(session: Session, served: Served, pages: int) -> Setup:
    run = runs.begin(session, "backfill", {}, _LOG)
    job = Job(session, run, ThreadWorkers(session), Tally(), _LOG, Published())
    read_side_by_side(job, "Metrics", dimension_chunks(frozenset({"metrics"})))
    metrics = transact(session, run, stored_metrics)
    end = served.start + timedelta(minutes=15 * pages)
    chunks = [BackfillChunk(metric_id, served.start, end, pages * PAGE) for metric_id in metrics.names]
    transact(session, run, lambda account: backfill_ledger.add(account, chunks, run.id))
    return Setup(session, run, chunks)


def _meet_people(setup: Setup) -> None:
    """Let the session know the people, as after the first of many chunks."""
    people = PendingPeople(setup.session.people)
    with setup.session.source() as source:
        for chunk in setup.chunks:
            for _ in source.events(chunk.window, chunk.metric_id, people):
                people.commit(people.take_added())


def _load(setup: Setup) -> None:
    session, run, chunks = setup
    metrics = transact(session, run, stored_metrics)
    for chunk in chunks:
        for unit in (extract, load):
            for outcome in unit(session, run, [chunk], metrics):
                if outcome.error:
                    raise outcome.error


def _measured(setup: Setup) -> dict[str, float]:
    meter = Meter()
    meter.install()
    with meter.stage(_REST):
        _load(setup)
    return meter.seconds


def _table(seconds: Mapping[str, float], events: int) -> str:
    names = (*_STAGES, _REST)
    rows = [(name, f"{seconds.get(name, 0.0) / events * 1e6:.1f}") for name in names]
    total = sum(seconds.get(name, 0.0) for name in names)
    return table(("stage", "µs per event"), [*rows, ("**all**", f"**{total / events * 1e6:.1f}**")])


def _profile(setup: Setup) -> None:
    import cProfile
    import pstats

    with cProfile.Profile(process_time) as profile:
        _load(setup)
    pstats.Stats(profile).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
