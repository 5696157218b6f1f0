"""Outcomes of chunks and of a run, as values; and the one mapping from errors to state, message and exit code."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

from klaviyo_pg.errors import (
    Busy,
    DatabaseAway,
    DatabaseUnusable,
    Incomplete,
    KlaviyoPgError,
    LeftOut,
    MissingScope,
    QuotaUsedUp,
    Refused,
    Stopped,
    Throttled,
    UnconfirmedLoss,
    UserError,
)
from klaviyo_pg.foreign import LONGEST_MESSAGE, printable
from klaviyo_pg.grouping import grouped
from klaviyo_pg.plurals import named
from klaviyo_pg.redaction import redacted
from klaviyo_pg.states import RunState

RowCounts = Mapping[str, Mapping[str, int]]
"""Table -> rows_read, inserted, updated, unchanged, rejected, nul_characters, replaced_values."""
ChunkType = TypeVar("ChunkType", covariant=True)
_NAMED_SUBJECTS = 5  # in a sentence; the log names all of them


def sum_counts(parts: Iterable[RowCounts]) -> RowCounts:
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
    counts: RowCounts = field(default_factory=dict)
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
    first = redacted(str(error)).strip().splitlines()
    return printable(f"{type(error).__name__}: {first[0]}") if first else type(error).__name__


class Effect(Enum):
    """The effect of an error on its run."""

    FAIL = auto()
    POSTPONE = auto()
    OMIT = auto()


def effect_of(error: Exception, tolerates_failures: bool) -> Effect:
    """Return what an error of a chunk does to its run.

    A missing scope, a refusal, an unconfirmed loss and a quota that is used up leave something out. A long pause that
    the API requires postpones the rest. Anything else fails the run, unless the run tolerates failures (a backfill,
    which retries failed chunks the next time): then only what the user has to change or asked for does.
    """
    if isinstance(error, LeftOut | MissingScope | Refused | UnconfirmedLoss):
        return Effect.OMIT
    if isinstance(error, Throttled):
        return Effect.POSTPONE
    if tolerates_failures and not isinstance(error, UserError | Stopped):
        return Effect.OMIT
    return Effect.FAIL


def needs_correction(error: Exception) -> bool:
    """Return whether every run has this error until the user has changed something."""
    return isinstance(error, UserError) and not isinstance(error, Busy | DatabaseAway)


class _Entry(NamedTuple):
    """An error, its effect, and the stream and the subject that it leaves out, where it is that of a chunk."""

    effect: Effect
    error: Exception
    stream: str | None = None
    subject: str | None = None

    @property
    def refused_stream(self) -> str | None:
        """The stream of which the API refused at least a part."""
        return self.stream if isinstance(self.error, Refused) else None


class Tally:
    """The errors of a run so far, and from them its state, its message and its exit code."""

    def __init__(self, tolerates_failures: bool = False, notes: Iterable[str] = ()) -> None:
        self.tolerates_failures = tolerates_failures
        self.was_ended = False
        self._notes = list(notes)
        self._has_differences = False
        self.has_new_metrics = False
        self._errors: list[_Entry] = []

    def add_notes(self, *sentences: str) -> None:
        """Note sentences to report, though nothing failed."""
        self._notes += sentences

    def add_differences(self, sentences: Iterable[str]) -> None:
        """Note that the source's counts and what is stored differ, with sentences about it."""
        self._has_differences = True
        self._notes += sentences

    def add_new_metrics(self, names: Sequence[str]) -> None:
        """Note metrics of the account that no earlier run has stored."""
        self.has_new_metrics = True
        self._notes.append(f"New {'metric' if len(names) == 1 else 'metrics'}: {named(names)}.")

    def add_error(self, error: Exception, stream: str | None = None, subject: str | None = None) -> None:
        """Note an error of the run as a whole, or of a chunk of a stream."""
        self._errors.append(_Entry(effect_of(error, self.tolerates_failures), error, stream, subject))

    def add_unavailable(self, stream: str, error: Exception) -> None:
        """Note that the API has an optional stream for others only. The run is complete without it."""
        name = stream.replace("_", " ")
        if isinstance(error, Incomplete):
            self.add_notes(_read_without(name, error))
        else:
            self.add_notes(f"The {name} were not read: {describe(error)}")

    def end_with(self, error: Exception) -> None:
        """Note the error that ended the run as a whole."""
        self.was_ended = True
        self._errors.append(_Entry(Effect.POSTPONE if isinstance(error, Throttled) else Effect.FAIL, error))

    @property
    def state(self) -> RunState:
        """The state in which the run ends."""
        effects = {entry.effect for entry in self._errors}
        if Effect.FAIL in effects:
            return RunState.STOPPED if all(isinstance(error, Stopped) for error in self._failures) else RunState.FAILED
        if Effect.POSTPONE in effects:
            return RunState.TO_BE_CONTINUED
        if Effect.OMIT in effects:
            return RunState.PARTIAL
        return RunState.COMPLETE_WITH_DIFFERENCES if self._has_differences else RunState.COMPLETE

    @property
    def _failures(self) -> list[Exception]:
        return [entry.error for entry in self._errors if entry.effect is Effect.FAIL]

    @property
    def must_stop(self) -> bool:
        """True if nothing else should begin."""
        return self.state in (RunState.FAILED, RunState.STOPPED, RunState.TO_BE_CONTINUED)

    @property
    def needs_correction(self) -> bool:
        """True if every run fails until the user has changed something."""
        return any(map(needs_correction, self._failures))

    @property
    def is_postponed(self) -> bool:
        """True if the API requires a pause that is longer than a run waits."""
        return any(entry.effect is Effect.POSTPONE for entry in self._errors)

    @property
    def is_quota_used_up(self) -> bool:
        """True if the API requires a longer pause than a run waits, or if it answers no more reports for the day."""
        return any(isinstance(entry.error, Throttled | QuotaUsedUp) for entry in self._errors)

    @property
    def missing_scopes(self) -> set[str]:
        """The scopes that the API key turned out to lack."""
        return {entry.error.scope for entry in self._errors if isinstance(entry.error, MissingScope)}

    def errors(self, stream: str) -> list[Exception]:
        """Return the errors of chunks of a stream."""
        return [entry.error for entry in self._errors if entry.stream == stream]

    def refusals(self, stream: str) -> list[Exception]:
        """Return the errors of chunks of a stream that the API refused."""
        return [entry.error for entry in self._errors if entry.refused_stream == stream]

    @property
    def omitted(self) -> int:
        """The number of errors that left something out."""
        return sum(entry.effect is Effect.OMIT for entry in self._errors)

    @property
    def exit_code(self) -> int:
        """The exit code of the run: 0 if it is complete, also with differences."""
        match self.state:
            case RunState.FAILED | RunState.STOPPED:
                return min(getattr(error, "exit_code", 1) for error in self._failures)
            case RunState.TO_BE_CONTINUED:
                return Throttled.exit_code
            case RunState.PARTIAL:
                return MissingScope.exit_code
        return 0

    @property
    def sentences(self) -> list[str]:
        """Each error once, as a sentence, the worst first; then the streams that were refused; then the notes.

        A problem of the database that several sessions had is one error. A request that needs several scopes is not
        reported if one of them is known to be missing.
        """
        missing = [set(scope.split(" and ")) for scope in self.missing_scopes]
        reported = [entry for entry in self._errors if not any(each < _scopes(entry) for each in missing)]
        worst_first = sorted(reported, key=lambda entry: entry.effect.value)
        described = _described(entry.error for entry in worst_first if entry.refused_stream is None)
        sentences = (*described, *_refused_streams(worst_first), *self._notes)
        return list(dict.fromkeys(printable(each, LONGEST_MESSAGE) for each in sentences))


def _described(errors: Iterable[Exception]) -> Iterable[str]:
    """Return errors as sentences; of those with the same problem of the database, the first."""
    sentences: dict[str, str] = {}
    for error in errors:
        sentence = describe(error)
        sentences.setdefault((isinstance(error, DatabaseUnusable) and error.problem) or sentence, sentence)
    return sentences.values()


def _scopes(entry: _Entry) -> set[str]:
    return set(entry.error.scope.split(" and ")) if isinstance(entry.error, MissingScope) else set()


def _refused_streams(entries: Iterable[_Entry]) -> Iterator[str]:
    """Yield a sentence for each reason for which the API refused streams. It names what was left out."""
    by_stream = grouped((entry.refused_stream, entry) for entry in entries if entry.refused_stream)
    left_out: dict[str, list[str]] = {}
    for stream, refused in by_stream.items():
        name, first = stream.replace("_", " "), refused[0]
        if isinstance(first.error, Incomplete):
            yield _read_without(name, first.error)
        else:
            left_out.setdefault(describe(first.error), []).append(name + _of_subjects(refused))
    for reason, names in left_out.items():
        yield f"The {' and '.join(names)} could not be read: {reason}"


def _read_without(name: str, error: Incomplete) -> str:
    return f"The {name} were read without {', '.join(error.parts)}: {error.reason}"


def _of_subjects(refused: Sequence[_Entry]) -> str:
    """Return which metrics or lists of a stream were refused. Empty if it is all of the stream."""
    subjects = dict.fromkeys(entry.subject for entry in refused)
    if None in subjects:
        return ""
    named, others = list(subjects)[:_NAMED_SUBJECTS], len(subjects) - _NAMED_SUBJECTS
    return f" of {', '.join(map(str, named))}" + (f" and {others} others" if others > 0 else "")


@dataclass(frozen=True)
class RunReport:
    """A run that has ended. It contains no settings: Prefect may keep what a flow returns.

    `is_limited` is that of `run_ledger.OpenedRun`.
    """

    run_id: str
    integration: str
    state: RunState
    sentences: tuple[str, ...]
    exit_code: int
    is_limited: bool = False


class RunFailed(KlaviyoPgError):
    """The run failed."""

    def __init__(self, report: RunReport) -> None:
        super().__init__(" ".join(report.sentences))
        self.report = report
        self.exit_code = report.exit_code

    def __reduce__(self) -> tuple[type["RunFailed"], tuple[RunReport]]:
        return (RunFailed, (self.report,))
