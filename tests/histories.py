"""Histories of ten people: what they are made of, how hypothesis draws them, and how one is played.

Playing one lets things happen to an `Audience`, runs the product now and then, and compares the warehouse with a
`Model` after each run.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, NamedTuple

import psycopg
from hypothesis import strategies as st

from klaviyo_pg.catalogue.events import EVENT_TABLES
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erase import erase
from tests.audience import OPTED_OUT, OPTED_OUT_FORMERLY, Audience
from tests.clock import Clock
from tests.model_of_people import Model, tables
from tests.runs import Result, Warehouse

NEW_YEAR = datetime(2025, 1, 1, tzinfo=UTC)
OVERLAP, FIRST_SYNC = timedelta(days=2), timedelta(days=20)
NAMES = ("News", "Sales", "Club")
PEOPLE = 10
MOST_LISTS = 5
FEWEST_PEOPLE = 4
ALWAYS_DUE = 1e-6  # days between sweeps
SECOND = timedelta(seconds=1)


class Step(NamedTuple):
    """Something that happens `after` seconds: to a person, a list and another person, each by number; `variant` of it.

    Numbers count those who exist at that time, modulo how many there are, so that each step is possible.
    """

    after: int
    action: str
    person: int
    list: int
    other: int
    variant: bool


class Period(NamedTuple):
    """What happens until a run, and the kind of that run: daily, sweep or backfill."""

    steps: tuple[Step, ...]
    after: int
    run: str


class History(NamedTuple):
    """Periods, and the value of DELETED_PROFILES."""

    periods: tuple[Period, ...]
    deleted_profiles: str


_DAY = 86_400
_PAUSES = st.one_of(
    st.sampled_from([0, 1, 4, 6]), st.integers(0, 3_600), st.integers(0, _DAY), st.integers(0, 12 * _DAY)
)
_OFTEN = ("subscribe", "subscribe", "unsubscribe", "opt_out", "opt_in", "leave", "suppress_for_list", "lift_for_list")
_SELDOM = (
    *("suppress", "lift", "rename_list", "create_list", "delete_list", "restore_list"),
    *("delete_person", "merge", "merge", "change_address", "take_address", "open_email", "open_email", "erase"),
)
_STEPS = st.builds(
    Step,
    _PAUSES,
    st.sampled_from((*_OFTEN, *_OFTEN, *_SELDOM)),
    st.sampled_from((0, 0, 0, 1, 1, 2, *range(PEOPLE))),
    st.integers(0, MOST_LISTS - 1),
    st.integers(0, PEOPLE - 1),
    st.booleans(),
)
_PERIODS = st.builds(
    Period,
    st.lists(_STEPS, max_size=25).map(tuple),
    _PAUSES,
    st.sampled_from(("daily", "daily", "sweep", "sweep", "backfill")),
)


def histories(most_runs: int) -> st.SearchStrategy[History]:
    """Return a strategy for histories of up to so many runs."""
    periods = st.lists(_PERIODS, min_size=1, max_size=most_runs).map(tuple)
    return st.builds(History, periods, st.sampled_from(("mark", "mark", "erase")))


class Difference(AssertionError):
    """The warehouse differs from the model. The message tells the history and what differs."""


@dataclass
class Stage:
    """Where histories are played: a warehouse with its clock. Each history has an integration of its own."""

    warehouse: Warehouse
    clock: Clock
    connection: psycopg.Connection
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def play(self, history: History) -> None:
        """Play a history. Raises Difference where the warehouse is not as the model says."""
        _Play(self, history).play()


def shrunk(history: History, fails: Callable[[History], bool], most_attempts: int) -> History:
    """Return a shorter history that fails too, found by leaving out periods, runs, steps and pauses."""
    attempts = most_attempts
    is_shorter = True
    while is_shorter:
        is_shorter = False
        for candidate in _shorter(history):
            attempts -= 1
            if attempts < 0:
                return history
            if fails(candidate):
                history, is_shorter = candidate, True
                break
    return history


def _shorter(history: History) -> Iterator[History]:
    """Yield shorter histories, much shorter ones first."""
    periods = history.periods
    for number in range(len(periods)):
        yield history._replace(periods=periods[:number] + periods[number + 1 :])
    for number in range(len(periods) - 1):
        joined = Period(periods[number].steps + periods[number + 1].steps, *periods[number + 1][1:])
        yield history._replace(periods=(*periods[:number], joined, *periods[number + 2 :]))
    for size in (8, 4, 2, 1):
        for number, period in enumerate(periods):
            for at in range(0, len(period.steps), size):
                shorter = period._replace(steps=period.steps[:at] + period.steps[at + size :])
                if len(period.steps) >= size:
                    yield history._replace(periods=(*periods[:number], shorter, *periods[number + 1 :]))


class _Play:
    """One history being played."""

    def __init__(self, stage: Stage, history: History) -> None:
        self._stage, self._history, self._clock = stage, history, stage.clock
        self._account = Audience(now=stage.clock)
        self._model = Model(OVERLAP, FIRST_SYNC)
        self._told: list[str] = []
        name = f"history {next(stage.numbers)}"
        self._warehouse = stage.warehouse.variant(
            klaviyo_integration=name,
            lookback_days=OVERLAP.days,
            first_sync_days=FIRST_SYNC.days,
            reconcile_days=0,
            deleted_profiles=history.deleted_profiles,
        )
        self._warehouse.open_source = self._account.open
        self._integration_id: str | None = None
        self._integration = name

    def play(self) -> None:
        self._begin()
        for period in self._history.periods:
            for step in period.steps:
                self._wait(timedelta(seconds=step.after))
                self._do(step)
            self._wait(max(SECOND, timedelta(seconds=period.after)))
            self._run(period.run)
            self._compare()

    def _begin(self) -> None:
        self._clock.set(NEW_YEAR + timedelta(days=1))
        for number, name in enumerate(NAMES):
            self._account.create_list(f"L{number}", name, self._at)
        for number in range(PEOPLE):
            self._account.create_person(f"P{number}", self._at)

    @property
    def _at(self) -> datetime:
        return self._clock.at

    def _wait(self, pause: timedelta) -> None:
        if pause:
            self._clock.at += pause

    def _tell(self, sentence: str) -> None:
        self._told.append(f"{self._at:%m-%d %H:%M:%S} {sentence}")

    def _do(self, step: Step) -> None:
        """Let a step happen, if it can."""
        people = [self._account.people[each] for each in sorted(self._account.people)]
        lists = sorted(self._account.names())
        person = people[step.person % len(people)].id
        other = people[step.other % len(people)].id
        list_id = lists[step.list % len(lists)] if lists else None
        scene = _Scene(person, other, list_id, step, self._at)
        sentence = _ACTIONS[step.action](self, scene)
        if sentence:
            self._tell(sentence)

    def _run(self, kind: str) -> None:
        self._clock.set(self._at)
        self._tell(f"{kind} run")
        if kind == "backfill":
            result = self._warehouse.backfill(NEW_YEAR, restart=True)
            self._model.read_history(self._account, NEW_YEAR, self._at)
        else:
            days = ALWAYS_DUE if kind == "sweep" else 0
            result = self._warehouse.daily(membership_sweep_days=days, profile_sweep_days=days)
            erases = self._history.deleted_profiles == "erase"
            self._model.read_daily(self._account, self._at, kind == "sweep", erases)
        self._check(result)
        self._account.requests.clear()
        self._integration_id = result.run.integration_id

    def _check(self, result: Result) -> None:
        if result.exit_code:
            raise Difference("\n".join([*self._told, f"The run ended with {result.exit_code}: {result.sentences}"]))

    def erase(self, profile_id: str | None, email: str | None) -> None:
        """Erase a person from the warehouse and from the model."""
        if self._integration_id is None:
            return
        schema = str(self._warehouse.settings.get("warehouse_schema", "klaviyo"))
        self._clock.set(self._at)
        with self._stage.connection.transaction():
            account = Account(self._stage.connection, schema, self._integration_id)
            erase(account, email, [profile_id] if profile_id else [])
        self._model.erase(profile_id, email)

    @property
    def account(self) -> Audience:
        return self._account

    def _compare(self) -> None:
        assert self._integration_id is not None
        expected, actual = tables(self._model), stored(self._stage.connection, self._integration_id)
        differences = [line for table in expected for line in _differences(table, expected[table], actual[table])]
        if differences:
            raise Difference("\n".join(["", *self._told, *differences]))


class _Scene(NamedTuple):
    """Who and what a step is about."""

    person: str
    other: str
    list_id: str | None
    step: Step
    at: datetime


def _differences(table: str, expected: Mapping[Any, Any], actual: Mapping[Any, Any]) -> Iterator[str]:
    for key in sorted({*expected, *actual}, key=str):
        if expected.get(key, "no row") != actual.get(key, "no row"):
            yield f"{table} {key}: expected {_shown(expected, key)}, actual {_shown(actual, key)}"


def _shown(rows: Mapping[Any, Any], key: Any) -> str:
    row = rows.get(key, "no row")
    values = row if isinstance(row, tuple) else (row,)
    return ", ".join(f"{each:%m-%d %H:%M:%S}" if isinstance(each, datetime) else str(each) for each in values)


def stored(connection: psycopg.Connection, integration_id: str) -> dict[str, dict[Any, Any]]:
    """Return what the warehouse contains, in the form of `tests.model_of_people.tables`."""

    def rows(query: str) -> Iterator[tuple[Any, ...]]:
        return iter(connection.execute(query, {"account": integration_id}).fetchall())

    account = "esp_integration_id = %(account)s"
    events = " UNION ALL ".join(f"SELECT id, member_key FROM {table.name} WHERE {account}" for table in EVENT_TABLES)
    owner = f"(SELECT min(id) FROM ({_IDS}) AS known (id) WHERE md5(id) = "
    return {
        "lists": dict(rows(f"SELECT id, deleted_at FROM lists WHERE {account} AND list_type = 'list'")),
        "exclusions": dict(rows(f"SELECT email, removed_at FROM member_exclusions WHERE {account}")),
        "members": {
            key: tuple(rest)
            for key, *rest in rows(f"SELECT id, email, consent, deleted_at, left_reason FROM members WHERE {account}")
        },
        "suppressions": {
            (list_id, member): tuple(rest)
            for list_id, member, *rest in rows(
                "SELECT list_id, member_id, reason, suppressed_at, lifted_at FROM list_suppressions"
                f" WHERE {account}"
            )
        },
        "events": dict(rows(f"SELECT id, coalesce({owner} member_key), member_key) FROM ({events}) AS event")),
        "merges": {
            (old, new): at
            for old, new, at in rows(
                f"SELECT {owner} old_member_key), {owner} new_member_key), detected_at FROM profile_merges"
                f" WHERE {account}"
            )
        },
        "member_lists": {
            (list_id, member): tuple(rest)
            for list_id, member, *rest in rows(
                "SELECT list_id, member_id, subscribed, unsubscribed_at, is_subscribed, left_reason"
                f" FROM member_lists WHERE {account}"
            )
        },
    }


_IDS = "VALUES " + ", ".join(f"('P{number}')" for number in range(PEOPLE))

Action = Callable[[_Play, _Scene], str | None]
"""Lets something happen and returns a sentence about it; None if it cannot happen."""
_ACTIONS: dict[str, Action] = {}


def _action(action: Action) -> Action:
    _ACTIONS[action.__name__.strip("_")] = action
    return action


def _name(play: _Play, list_id: str) -> str:
    return f"{list_id} ({play.account.names()[list_id]})"


@_action
def _subscribe(play: _Play, scene: _Scene) -> str | None:
    if scene.list_id is None:
        return None
    has_event = scene.step.variant or scene.step.other % 2 == 0
    play.account.subscribe(scene.person, scene.list_id, scene.at, has_event)
    return f"{scene.person} joins {_name(play, scene.list_id)}{'' if has_event else ', without an event'}"


@_action
def _unsubscribe(play: _Play, scene: _Scene) -> str | None:
    if scene.list_id is None:
        return None
    play.account.unsubscribe(scene.person, scene.list_id, scene.at, scene.step.variant)
    return f"{scene.person} leaves {_name(play, scene.list_id)}{', but is not removed' * (not scene.step.variant)}"


@_action
def _leave(play: _Play, scene: _Scene) -> str | None:
    if scene.list_id is None:
        return None
    play.account.leave(scene.person, scene.list_id)
    return f"{scene.person} is removed from {scene.list_id}"


@_action
def _opt_out(play: _Play, scene: _Scene) -> str | None:
    metric = OPTED_OUT if scene.step.other % 2 else OPTED_OUT_FORMERLY
    removed = (scene.list_id,) if scene.list_id and scene.step.variant else ()
    play.account.opt_out(scene.person, scene.at, metric, removed)
    return f"{scene.person} unsubscribes from everything{f' and is removed from {removed[0]}' if removed else ''}"


@_action
def _opt_in(play: _Play, scene: _Scene) -> str | None:
    play.account.opt_in(scene.person, scene.at)
    return f"{scene.person} subscribes to email marketing"


@_action
def _suppress_for_list(play: _Play, scene: _Scene) -> str | None:
    if scene.list_id is None:
        return None
    play.account.suppress_for_list(scene.person, scene.list_id, scene.at)
    return f"{scene.person} is suppressed for {scene.list_id}"


@_action
def _lift_for_list(play: _Play, scene: _Scene) -> str | None:
    if scene.list_id is None:
        return None
    play.account.lift_for_list(scene.person, scene.list_id, scene.at)
    return f"the suppression of {scene.person} for {scene.list_id} is lifted"


@_action
def _suppress(play: _Play, scene: _Scene) -> str | None:
    play.account.suppress(scene.person, scene.at)
    return f"{scene.person} is suppressed for everything"


@_action
def _lift(play: _Play, scene: _Scene) -> str | None:
    play.account.lift(scene.person, scene.at)
    return f"the suppression of {scene.person} is lifted"


@_action
def _open_email(play: _Play, scene: _Scene) -> str | None:
    play.account.open_email(scene.person, scene.at)
    return f"{scene.person} opens an email"


@_action
def _rename_list(play: _Play, scene: _Scene) -> str | None:
    """Rename a list. Nothing else happens within that second, which the events' times could not tell apart."""
    if scene.list_id is None:
        return None
    before, name = _name(play, scene.list_id), NAMES[scene.step.other % len(NAMES)]
    play.account.rename_list(scene.list_id, name, scene.at)
    return f"{before} is renamed to {name}"


@_action
def _create_list(play: _Play, scene: _Scene) -> str | None:
    number = len(play.account.lists) + len(play.account.deleted_lists())
    if number >= MOST_LISTS:
        return None
    name = NAMES[scene.step.other % len(NAMES)]
    play.account.create_list(f"L{number}", name, scene.at)
    return f"L{number} ({name}) is created"


@_action
def _delete_list(play: _Play, scene: _Scene) -> str | None:
    if scene.list_id is None:
        return None
    play.account.delete_list(scene.list_id)
    return f"{scene.list_id} is deleted"


@_action
def _restore_list(play: _Play, scene: _Scene) -> str | None:
    deleted = play.account.deleted_lists()
    if not deleted:
        return None
    list_id = deleted[scene.step.list % len(deleted)]
    play.account.restore_list(list_id)
    return f"{_name(play, list_id)} is restored"


@_action
def _delete_person(play: _Play, scene: _Scene) -> str | None:
    if len(play.account.people) <= FEWEST_PEOPLE:
        return None
    play.account.delete_person(scene.person)
    return f"{scene.person} is deleted"


@_action
def _merge(play: _Play, scene: _Scene) -> str | None:
    if len(play.account.people) <= FEWEST_PEOPLE or scene.person == scene.other:
        return None
    play.account.merge(scene.person, scene.other, scene.at)
    return f"{scene.person} is merged into {scene.other}"


@_action
def _change_address(play: _Play, scene: _Scene) -> str | None:
    email = None if scene.step.variant else f"{scene.person.lower()}-{scene.step.other}@example.com"
    play.account.change_address(scene.person, email, scene.at)
    return f"the address of {scene.person} becomes {email}"


@_action
def _take_address(play: _Play, scene: _Scene) -> str | None:
    """Give a person the first address of another one, if nobody has it now."""
    email = f"{scene.other.lower()}@example.com"
    if any(each.email == email for each in play.account.people.values()):
        return None
    play.account.change_address(scene.person, email, scene.at)
    return f"the address of {scene.person} becomes {email}"


@_action
def _erase(play: _Play, scene: _Scene) -> str | None:
    email = play.account.people[scene.person].email if scene.step.variant else None
    play.erase(None if email else scene.person, email)
    return f"{scene.person} is erased from the warehouse{f' by the address {email}' if email else ''}"
