"""Reading chunks of a run side by side: those that are left, in units that workers take, with the step's progress."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from time import monotonic

from klaviyo_pg.errors import MissingScope, Refused, Stopped
from klaviyo_pg.foreign import printable
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres import lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import chunk_ledger, sweep_ledger
from klaviyo_pg.windows import FULL_READ, parse
from pipeline.chunks import Chunk
from pipeline.figures import changes
from pipeline.job import POLL_SECONDS, Job
from pipeline.outcome import Outcome, describe, sum_counts
from pipeline.progress import SETTLED_SECONDS
from pipeline.read import read_chunks
from pipeline.streams import STREAMS
from pipeline.workers import Inbox

_JUST_NOW = timedelta(minutes=1)  # age up to which a resumed run takes what it has read for the present
_NAMED = frozenset({"metric", "list", "segment"})  # subjects that have a name
_LONGEST_NAME = 60  # characters
_LISTS_AT_ONCE = 10  # lists or segments of which one unit reads the new members: each Prefect task run is expensive


def read_side_by_side(job: Job, title: str, chunks: Iterable[Chunk]) -> None:
    """Read chunks side by side, except those that an earlier attempt of this run has already read.

    A chunk that fails does not stop the others; the job's tally has its error.
    """
    waiting = _left(job, list(chunks))
    groups = list(_groups(waiting))
    names = _names(job, waiting)
    inbox, standing = Inbox(), _Standing(job, groups, names)
    with (
        job.session.stop.on_signals(),
        job.session.progress.stage(title, "chunks", at_once=job.worker_count),
        job.workers.pool(job.worker_count) as pool,
    ):
        standing.expect()

        def submit(group: tuple[Chunk, ...]) -> None:
            future = pool.submit(label(group, names), read_chunks, job.run, group)
            inbox.follow(future, partial(done, group), partial(standing.failed, group))

        def done(group: tuple[Chunk, ...], outcomes: Sequence[Outcome[Chunk]]) -> None:
            standing.done(group, outcomes)
            for piece in _pieces(job, group, standing.groups):
                standing.add((piece,))
                submit((piece,))

        for group in groups:
            submit(group)
        while len(inbox):
            inbox.handle_next(POLL_SECONDS)
            job.session.claims.keep()


def _left(job: Job, planned: list[Chunk]) -> list[Chunk]:
    """Enter chunks in the run's ledger and return those that are not done yet.

    A resumed run reads what ends in the present again, unless it was read just now.
    """
    run, names = job.run, [(chunk.key, chunk.part) for chunk in planned]

    def plan(account: Account) -> tuple[int, set[tuple[str, str]]]:
        reopened = 0 if run.resumed_at is None else _resume(account, run.id, planned)
        return reopened, chunk_ledger.plan_chunks(account, run.id, names)

    reopened, done = job.transact(plan)
    if reopened:
        job.log.info(
            "%d of %d chunks end in the present and were read before: they are read again", reopened, len(planned)
        )
    waiting = [chunk for chunk in planned if (chunk.key, chunk.part) not in done]
    if len(waiting) < len(planned):
        job.log.info("%d of %d chunks were already done", len(planned) - len(waiting), len(planned))
    return waiting


def _resume(account: Account, run_id: str, planned: Sequence[Chunk]) -> int:
    """Forget the chunks that an earlier attempt planned otherwise, and reopen those that end in the present.

    Return how many were reopened. Parts of one full read are all read again if what some of them found is gone.
    """
    names = {(chunk.key, chunk.part): chunk for chunk in planned if not chunk.reread}
    streams = {chunk.stream for chunk in names.values()}
    chunk_ledger.drop_unplanned(account, run_id, streams, names)
    still_open = [name for name, chunk in names.items() if chunk.is_open]
    reopened = chunk_ledger.reopen(account, run_id, still_open, _JUST_NOW)
    for stream in sorted(each for each in streams if STREAMS[each].is_read_in_parts):
        parts = [name for name, chunk in names.items() if chunk.stream == stream]
        if not chunk_ledger.done(account, run_id).issuperset(parts) and sweep_ledger.is_lost(account, run_id, stream):
            chunk_ledger.delete(account, run_id, stream)
    return reopened


def _pieces(job: Job, group: Sequence[Chunk], begun: Iterable[Sequence[Chunk]]) -> list[Chunk]:
    """Return the pieces of chunks that were divided while they were read, according to the ledger."""
    divisible = [chunk for chunk in group if chunk.is_divisible]
    if not divisible:
        return []
    [chunk], run = divisible, job.run
    known = {each.window for other in begun for each in other if each.key == chunk.key}
    parts = job.transact(lambda account: chunk_ledger.parts(account, run.id, chunk.key))
    return [chunk._replace(window=window) for window in map(parse, parts) if window not in known]


def _groups(chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, ...]]:
    """Yield the chunks that one unit reads: a single one, new members of several lists, or a stream in turn."""
    joined: dict[str, list[Chunk]] = {}
    in_turn: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        if STREAMS[chunk.stream].in_turn:
            in_turn.setdefault(chunk.stream, []).append(chunk)
        elif STREAMS[chunk.stream].subject in ("list", "segment") and chunk.window.start is not None:
            joined.setdefault(chunk.stream, []).append(chunk)
        else:
            yield (chunk,)
    yield from map(tuple, in_turn.values())
    for group in joined.values():
        for at in range(0, len(group), _LISTS_AT_ONCE):
            yield tuple(group[at : at + _LISTS_AT_ONCE])


def _names(job: Job, chunks: Sequence[Chunk]) -> Mapping[str, str]:
    """Return the stored names of metrics, lists and segments by ID, if chunks are limited to some."""
    is_named = any(chunk.subject and STREAMS[chunk.stream].subject in _NAMED for chunk in chunks)
    return job.transact(lookups.names) if is_named else {}


def label(group: Sequence[Chunk], names: Mapping[str, str]) -> str:
    """Return what people see of chunks that one unit reads. `names` are those of metrics, lists and segments by ID."""
    chunk, stream = group[0], STREAMS[group[0].stream]
    if len(group) > 1:
        return f"{stream.title} of {len(group)} {'day' if stream.in_turn else stream.subject}s"
    words = [
        stream.title,
        f"of {_named(chunk.subject, names)}" if chunk.subject else "",
        "" if chunk.window == FULL_READ or stream.subject == "month" else str(chunk.window),
        "again" if chunk.reread else "",
    ]
    return " ".join(filter(None, words))


def _named(subject: str, names: Mapping[str, str]) -> str:
    name = names.get(subject)
    return printable(subject) if name is None else f"{printable(name, _LONGEST_NAME)} ({printable(subject)})"


class _Standing:
    """The progress of a step: notes groups that have been read or have failed, and logs each of them."""

    def __init__(self, job: Job, groups: Sequence[Sequence[Chunk]], names: Mapping[str, str]) -> None:
        self._job, self.groups, self._names = job, list(groups), names
        self._began, self._finished, self._finished_chunks = monotonic(), 0, 0

    def expect(self) -> None:
        """Let the display know how many chunks of each stream there are."""
        totals: dict[str, int] = {}
        for group in self.groups:
            totals[group[0].stream] = totals.get(group[0].stream, 0) + len(group)
        for stream, total in totals.items():
            self._job.session.progress.expect(stream, STREAMS[stream].title, total)

    def add(self, group: Sequence[Chunk]) -> None:
        """Add a group that was not planned."""
        self.groups.append(group)
        self.expect()

    def done(self, group: Sequence[Chunk], outcomes: Sequence[Outcome[Chunk]]) -> None:
        """Note the outcomes of a group."""
        self._finish(group)
        read = [outcome for outcome in outcomes if outcome.error is None]
        self._job.session.progress.add(group[0].stream, done=len(read))
        for outcome in outcomes:
            if outcome.error is not None:
                self._note(label([outcome.chunk], self._names), outcome.chunk, outcome.error)
        if read:
            rows = changes(sum_counts(outcome.counts for outcome in read))
            self._job.log.info("Loaded %s: %s, %s", label(group, self._names), rows, self._progress)

    def _finish(self, group: Sequence[Chunk]) -> None:
        self._finished += 1
        self._finished_chunks += len(group)

    @property
    def _progress(self) -> str:
        """The progress as a phrase. No time is estimated from the first seconds, which say little about the rest.

        No time is estimated either once all chunks have begun, because the longest ones are left then.
        """
        total, seconds = sum(map(len, self.groups)), monotonic() - self._began
        done = f"{self._finished_chunks:,} of {counted(total, 'chunk')} done"
        waiting = len(self.groups) - self._finished
        if waiting and waiting <= self._job.worker_count:
            return f"{done}, the last ones in progress"
        left = timedelta(seconds=round(seconds / self._finished * waiting))
        return f"{done}, about {left} left for this step" if left and seconds >= SETTLED_SECONDS else done

    def failed(self, group: Sequence[Chunk], error: Exception) -> None:
        """Note that a unit failed as a whole."""
        self._finish(group)
        self._note(label(group, self._names), group[0], error)

    def _note(self, what: str, chunk: Chunk, error: Exception) -> None:
        if STREAMS[chunk.stream].is_optional and isinstance(error, MissingScope | Refused):
            self._job.tally.add_unavailable(chunk.stream, error)
        else:
            self._job.tally.add_error(error, chunk.stream, chunk.subject)
        self._job.session.stop.request_if_throttled(error)
        if not isinstance(error, Stopped):
            self._job.log.warning("%s: %s", what, describe(error))
