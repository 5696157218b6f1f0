"""The end of a run, as far as people are concerned: profiles that are gone, members of lists, and erasing."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from klaviyo_pg.errors import Busy, UnconfirmedLoss
from klaviyo_pg.postgres import departures, erase, run_ledger, watermarks
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.member_lists import Derived, derive_member_lists
from pipeline import erasing
from pipeline.runs import Run, transact
from pipeline.session import Session
from pipeline.streams.exclusions import EXCLUSIONS

Result = TypeVar("Result")


class _TakenOver(Exception):
    """Another process has claimed erasing after this one lost its claim."""


def derive(session: Session, run: Run) -> UnconfirmedLoss | None:
    """Mark the profiles that are gone, bring member_lists up to date, and count its rows for the run.

    It is not derived before all exclusions were read once: people who are excluded would seem to be contactable.
    Returns the loss of profiles that a later run has to confirm, if there is one.
    """

    with session.source() as source:
        has_status = source.looks_up_memberships

    def work(account: Account) -> tuple[UnconfirmedLoss | None, int]:
        loss = departures.apply(account, run.settings.max_loss_percent / 100)
        has_exclusions = EXCLUSIONS.name in watermarks.read(account)
        derived = derive_member_lists(account, has_status=has_status) if has_exclusions else Derived(0, 0, 0)
        counts = {
            "rows_read": derived.rows_read,
            "inserted": derived.inserted,
            "updated": derived.updated,
            "unchanged": derived.rows_read - derived.inserted - derived.updated,
        }
        run_ledger.add_counts(account, run.id, {"member_lists": counts})
        return loss, derived.rows_read

    session.progress.expect("member_lists", "member_lists", None)
    loss, rows = transact(session, run, work)
    session.progress.complete("member_lists", 1, rows=rows)
    return loss


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
    return "1 person" if number == 1 else f"{number:,} people"


def _erase(session: Session, run: Run, ids: Collection[str]) -> erasing.Erased | None:
    def step(work: Callable[[Account], Result], /) -> Result:
        session.stop.check()
        return transact(session, run, work)

    def step_under_claim(work: Callable[[Account], Result], /) -> Result:
        def checked(account: Account) -> Result:
            if not session.holds_claim(erase.CLAIM):
                raise _TakenOver
            return work(account)

        return step(checked)

    @contextmanager
    def claim() -> Iterator[erasing.Transact | None]:
        try:
            session.claim(run.integration_id, erase.CLAIM, is_vital=False)
        except Busy:
            yield None
            return
        try:
            yield step_under_claim
        finally:
            session.release_claim(erase.CLAIM)

    try:
        return erasing.erase_people(step, claim, (), ids)
    except _TakenOver:
        return None
