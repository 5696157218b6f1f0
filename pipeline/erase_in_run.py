"""The erasing that a run does: what was interrupted, and people who were deleted in Klaviyo or merged."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from klaviyo_pg.errors import Busy
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres import departures
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import erase
from pipeline import erasing
from pipeline.runs import Run, transact
from pipeline.session import Session

Result = TypeVar("Result")


class _TakenOver(Exception):
    """Another process has claimed erasing after this one lost its claim."""


def erase_people(session: Session, run: Run) -> list[str]:
    """Finish erasing that was interrupted, and erase the profiles that were merged into people who are erased.

    Also erase the people whose profile was deleted, if DELETED_PROFILES says so. Return sentences for the message.
    """
    unfinished = transact(session, run, erase.pending)
    erases = run.settings.deleted_profiles == "erase"
    ids = transact(session, run, departures.to_erase) if erases else []
    merged = transact(session, run, departures.merged_into_erased)
    if not unfinished and not ids and not merged:
        return []

    session.progress.expect("erasing", "erasing", None)
    erased = _erase(session, run, [*ids, *merged])
    session.progress.complete("erasing", 1)
    if erased is None:
        return ["Another process is erasing people. It also erases those who were left to this run."]
    sentences = [f"Finished erasing {_people(unfinished)}, which had been interrupted."] if unfinished else []
    sentences += [f"Erased {_people(len(ids))} deleted in Klaviyo."] if ids else []
    return sentences + ([f"Erased {_people(len(merged))} merged into people who had been erased."] if merged else [])


def _people(number: int) -> str:
    return counted(number, "person", "people")


def _erase(session: Session, run: Run, ids: Collection[str]) -> erasing.ErasedCounts | None:
    def step(work: Callable[[Account], Result], /) -> Result:
        session.stop.check()
        return transact(session, run, work)

    def step_under_claim(work: Callable[[Account], Result], /) -> Result:
        def checked(account: Account) -> Result:
            if erase.CLAIM not in session.claims:
                raise _TakenOver
            return work(account)

        return step(checked)

    @contextmanager
    def claim() -> Iterator[erasing.Transact | None]:
        try:
            session.database.wait_for(partial(session.claims.take, run.integration_id, erase.CLAIM, is_vital=False))
        except Busy:
            yield None
            return
        try:
            yield step_under_claim
        finally:
            session.claims.release(erase.CLAIM)

    try:
        return erasing.erase_people(step, claim, (), ids)
    except _TakenOver:
        return None
