"""Outcomes of chunks and of a run, as values; and the one mapping from errors to state, message and exit code."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, TypeVar

from klaviyo_pg.errors import KlaviyoPgError, MissingScope, Stopped, Throttled, UnconfirmedLoss, UserError
from klaviyo_pg.states import RunState

Counts = Mapping[str, Mapping[str, int]]
"""Table -> rows_read, inserted, updated, unchanged, rejected, nul_characters."""
ChunkType = TypeVar("ChunkType", covariant=True)


def sum_counts(parts: Iterable[Counts]) -> Counts:
    """Add up counts of rows by table."""
    total: dict[str, dict[str, int]] = {}
    for counts in parts:
        for table, numbers in counts.items():
            sums = total.setdefault(table, {})
            sums.update({name: sums.get(name, 0) + number for name, number in numbers.items()})
    return total


@dataclass(frozen=True)
class Outcome(Generic[ChunkType]):
    """The outcome of one chunk: read (with its counts of rows), already done, or failed with an error."""

    chunk: ChunkType
    counts: Counts = field(default_factory=dict)
    was_done: bool = False
    error: Exception | None = None

    @property
    def rows_read(self) -> int:
        """Rows that were read, over all tables."""
        return sum(numbers.get("rows_read", 0) for numbers in self.counts.values())


def describe(error: BaseException) -> str:
    """Return an error as one sentence; for an unexpected one, its type and the first line of its message."""
    if isinstance(error, KlaviyoPgError):
        return str(error)
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


class Effect(Enum):
    """The effect of an error on its run."""

    FAIL = auto()
    POSTPONE = auto()
    OMIT = auto()


def effect_of(error: Exception, tolerates_failures: bool) -> Effect:
    """Return what an error of a chunk does to its run.

    A missing scope or an unconfirmed loss leaves something out. A long pause that the API requires postpones the rest.
    Anything else fails the run, unless the run tolerates failures (a backfill, which retries failed chunks the next
    time): then only what the user has to change or asked for does.
    """
    if isinstance(error, MissingScope | UnconfirmedLoss):
        return Effect.OMIT
    if isinstance(error, Throttled):
        return Effect.POSTPONE
    if tolerates_failures and not isinstance(error, UserError | Stopped):
        return Effect.OMIT
    return Effect.FAIL


class Tally:
    """The errors of a run so far, and from them its state, its message and its exit code."""

    def __init__(self, tolerates_failures: bool = False) -> None:
        self.tolerates_failures = tolerates_failures
        self.notes: list[str] = []  # to report, though nothing failed
        self.was_ended = False
        self._errors: list[tuple[Effect, Exception]] = []

    def add(self, error: Exception) -> None:
        """Note an error of a chunk, or of the run as a whole."""
        self._errors.append((effect_of(error, self.tolerates_failures), error))

    def end(self, error: Exception) -> None:
        """Note the error that ended the run as a whole."""
        self.was_ended = True
        self._errors.append((Effect.POSTPONE if isinstance(error, Throttled) else Effect.FAIL, error))

    @property
    def state(self) -> RunState:
        """The state in which the run ends."""
        effects = {effect for effect, _ in self._errors}
        if Effect.FAIL in effects:
            return RunState.FAILED
        if Effect.POSTPONE in effects:
            return RunState.TO_BE_CONTINUED
        return RunState.PARTIAL if Effect.OMIT in effects else RunState.COMPLETE

    @property
    def must_stop(self) -> bool:
        """True if nothing else should begin."""
        return self.state in (RunState.FAILED, RunState.TO_BE_CONTINUED)

    @property
    def is_postponed(self) -> bool:
        """True if the API requires a pause that is longer than a run waits."""
        return any(effect is Effect.POSTPONE for effect, _ in self._errors)

    @property
    def missing_scopes(self) -> set[str]:
        """The scopes that the API key turned out to lack."""
        return {error.scope for _, error in self._errors if isinstance(error, MissingScope)}

    @property
    def omitted(self) -> int:
        """The number of errors that left something out."""
        return sum(effect is Effect.OMIT for effect, _ in self._errors)

    @property
    def exit_code(self) -> int:
        """The exit code of the run: 0 if it is complete."""
        match self.state:
            case RunState.FAILED:
                failures = (error for effect, error in self._errors if effect is Effect.FAIL)
                return min(getattr(error, "exit_code", 1) for error in failures)
            case RunState.TO_BE_CONTINUED:
                return Throttled.exit_code
            case RunState.PARTIAL:
                return MissingScope.exit_code
        return 0

    @property
    def sentences(self) -> list[str]:
        """Each error once, as a sentence, the worst first; then the notes."""
        worst_first = sorted(self._errors, key=lambda pair: pair[0].value)
        return list(dict.fromkeys([*(describe(error) for _, error in worst_first), *self.notes]))


@dataclass(frozen=True)
class Report:
    """A run that has ended. It contains no settings: Prefect may keep what a flow returns."""

    run_id: str
    integration: str
    state: RunState
    sentences: tuple[str, ...]
    exit_code: int


class RunFailed(KlaviyoPgError):
    """The run failed."""

    def __init__(self, report: Report) -> None:
        super().__init__(" ".join(report.sentences))
        self.report = report
        self.exit_code = report.exit_code

    def __reduce__(self) -> tuple[type["RunFailed"], tuple[Report]]:
        return (RunFailed, (self.report,))
