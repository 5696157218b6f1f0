"""Reading chunks side by side, and keeping account of what went well."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import cast

from prefect import get_run_logger
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from klaviyo_pg.errors import KlaviyoPgError, MissingScope, Stopped, Throttled
from klaviyo_pg.postgres import ledger
from tasks import edges, stopping
from tasks.extract import LOADERS, Lists, load_list_members
from tasks.plan import Chunk
from tasks.run import Run, patiently
from tasks.store import Counts

_LISTS_AT_ONCE = 10  # whose new members one task reads


@dataclass
class Problems:
    """What went wrong with parts of a run, by what the user has to do about it."""

    skipped: list[Exception] = field(default_factory=list)
    postponed: list[Exception] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)

    def add(self, error: Exception) -> None:
        if isinstance(error, MissingScope):
            self.skipped.append(error)
        elif isinstance(error, Throttled):
            self.postponed.append(error)
            stopping.ask(error)
        else:
            self.failed.append(error)

    @property
    def state(self) -> str:
        """failed, to be continued (the API wants a long pause), partial (a scope is missing, or a chunk of history
        failed) or complete.
        """
        if self.failed:
            return "failed"
        return "to be continued" if self.postponed else "partial" if self.skipped else "complete"

    @property
    def stop(self) -> bool:
        """Whether it is no use to begin anything else."""
        return bool(self.failed or self.postponed)

    @property
    def exit_code(self) -> int:
        """That of the worst error; 0 where there is none."""
        codes = [getattr(error, "exit_code", 1) for error in self.failed]
        if codes or self.postponed:
            return min(codes, default=Throttled.exit_code)
        return MissingScope.exit_code if self.skipped else 0

    @property
    def sentences(self) -> list[str]:
        """Each problem once, in one sentence."""
        return list(dict.fromkeys(told(error) for error in (*self.failed, *self.postponed, *self.skipped)))


def read(run: Run, chunks: Iterable[Chunk], problems: Problems) -> None:
    """Read chunks side by side, those left out that an earlier attempt of this run has read.

    A chunk that fails does not stop the others; `problems` tells of it.
    """
    logger = get_run_logger()
    planned = list(chunks)
    names = [(chunk.stream, chunk.part) for chunk in planned]
    done = patiently(
        run, lambda connection: ledger.plan_chunks(connection, run.schema, run.id, run.integration_id, names)
    )
    waiting = [chunk for chunk in planned if (chunk.stream, chunk.part) not in done]
    if done:
        logger.info("%d of %d chunks had been read before", len(planned) - len(waiting), len(planned))
    began, rows = monotonic(), 0
    limit = edges.source(run.settings).event_requests_a_minute
    at_once = edges.side_by_side(run.settings, run.answer_seconds, limit)
    parts = list(_parts(waiting))
    with stopping.on_signals(), cast(ThreadPoolTaskRunner[Counts], ThreadPoolTaskRunner(max_workers=at_once)) as runner:
        submitted = {_submit(runner, run, part): part for part in parts}
        for number, future in enumerate(as_completed(list(submitted)), 1):
            part = submitted[future]
            result = future.result(raise_on_failure=False)
            if isinstance(result, Exception):
                failed = dict[object, Exception](part.failed.items() if isinstance(part, Lists) else ())
                if result not in failed.values():  # the whole part's, as a stop is
                    failed[part] = result
                for each, error in failed.items():
                    problems.add(error)
                    if not isinstance(error, Stopped):
                        logger.warning("%s: %s", each, told(error))
                continue
            rows += sum(counts.get("rows_read", 0) for counts in result.values())
            left = (monotonic() - began) / number * (len(parts) - number)
            logger.info("%s: %d of %d parts, %d rows, about %d s left", part, number, len(parts), rows, left)


def _parts(chunks: Iterable[Chunk]) -> Iterator[Chunk | Lists]:
    """What a task reads each: one chunk, or several lists of which only new members are read."""
    lately: list[Chunk] = []
    for chunk in chunks:
        if chunk.kind != "list_members":
            yield chunk
        elif chunk.window.start is None:
            yield Lists([chunk])
        else:
            lately.append(chunk)
    for at in range(0, len(lately), _LISTS_AT_ONCE):
        yield Lists(lately[at : at + _LISTS_AT_ONCE])


def _submit(runner: ThreadPoolTaskRunner[Counts], run: Run, part: Chunk | Lists) -> PrefectFuture[Counts]:
    if isinstance(part, Lists):
        return runner.submit(load_list_members, {"run": run, "lists": part})
    return runner.submit(LOADERS[part.kind], {"run": run, "chunk": part})


def told(error: BaseException) -> str:
    """An error in one sentence; of one that nobody expected, the kind and its first line."""
    if isinstance(error, KlaviyoPgError):
        return str(error)
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
