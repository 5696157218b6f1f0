"""Erasing people, many at once, in short transactions: loading continues, and a rerun resumes it.

Once people are recorded as erased, all later batches leave them out, so that what is left to clear only becomes less.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from klaviyo_pg.catalogue import bookkeeping, dimensions, events
from klaviyo_pg.errors import DatabaseAway
from klaviyo_pg.postgres import claims, stored_marts
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import erase, erase_events, erase_rejects

Result = TypeVar("Result")
OnProgress = Callable[[str, int, int], None]
"""Called with the name of a step, how much of it is done, and how much there is."""


class Transact(Protocol):
    """Does some work in one transaction, and returns its result."""

    def __call__(self, work: Callable[[Account], Result], /) -> Result: ...


Claim = Callable[[], AbstractContextManager[Transact | None]]
"""Claims erasing, and returns what works under the claim; None where another process has claimed it."""


class ErasedCounts(NamedTuple):
    """The number of affected rows by table, and of people. If erasing was resumed, only the rows erased since then."""

    rows: Mapping[str, int]
    people: erase.Finished


def in_transactions(account: Account) -> Transact:
    """Return a function that does each piece of work in a transaction of the account's connection."""

    def transact(work: Callable[[Account], Result], /) -> Result:
        with account.connection.transaction():
            return work(account)

    return transact


def claim_over(account: Account, holder: Account) -> Claim:
    """Return what claims erasing in a transaction of the holder's connection, and works in others of the account's.

    This also works through a pooler in transaction mode.
    """
    transact = in_transactions(account)

    @contextmanager
    def claim() -> Iterator[Transact | None]:
        with holder.connection.transaction():
            if not claims.try_claim(holder, erase.CLAIM, for_transaction=True):
                yield None
                return
            session = claims.session_of(holder.connection)
            claims.wait_for_last_holder(account, erase.CLAIM)
            yield under_claim(transact, erase.CLAIM, session)

    return claim


def under_claim(transact: Transact, what: str, session: int) -> Transact:
    """Return a function that does each piece of work while a session of the server holds a claim.

    It raises DatabaseAway if the session no longer does.
    """

    def transact_under_claim(work: Callable[[Account], Result], /) -> Result:
        def guarded(account: Account) -> Result:
            if claims.hold_for_transaction(account, what, session) is None:
                raise DatabaseAway("The database ended the session of this command. Rerun to resume.")
            return work(account)

        return transact(guarded)

    return transact_under_claim


def report_nothing(step: str, done: int, total: int) -> None:
    """Report nothing."""


def erase_people(
    transact: Transact,
    claim: Claim,
    addresses: Collection[str] = (),
    member_ids: Collection[str] = (),
    report: OnProgress = report_nothing,
) -> ErasedCounts | None:
    """Erase people, identified by addresses or by profile IDs, and those whose erasing was not finished before.

    Each step is stored when it is done, so that erasing can be interrupted at any time. A rerun does the rest, also
    without naming anyone. Returns None if another process is erasing people of the account: it erases these too.
    """
    transact(partial(erase.request, addresses=addresses, member_ids=member_ids))
    rows: Counter[str] = Counter({table.name: 0 for table in events.EVENT_TABLES})
    people: list[erase.Finished] = []
    while not people or transact(erase.pending):  # who was left to this process while it still had the claim
        with claim() as under:
            if under is None:
                break
            people.append(_finish(under, rows, report))
    return ErasedCounts(dict(rows), erase.Finished(*map(sum, zip(*people, strict=True)))) if people else None


def _finish(transact: Transact, rows: Counter[str], report: OnProgress) -> erase.Finished:
    while True:
        _search(transact, rows, report)
        _clear(transact, rows, report)
        _delete(transact, rows)
        if people := transact(_finished):
            return people


def _finished(account: Account) -> erase.Finished | None:
    """Forget the people who have been erased, unless others have been added who have not been looked for."""
    erase.lock_out_batches_and_people(account)
    erase.add_merged(account)
    return None if erase_events.to_search(account) else erase.finish(account)


def _record(transact: Transact, rows: Counter[str]) -> None:
    while transact(erase.is_unrecorded):
        rows.update(transact(erase.record))


def _search(transact: Transact, rows: Counter[str], report: OnProgress) -> None:
    """Record the people, and find their events, which can name further profiles and addresses of theirs."""
    while True:
        _record(transact, rows)
        _search_once(transact, report)
        found = transact(erase_events.discover)
        if not found.profiles:
            return _record(transact, rows)


def _search_once(transact: Transact, report: OnProgress) -> None:
    partitions = sorted(transact(erase_events.to_search), key=lambda partition: partition.pages)
    total, done = sum(partition.pages for partition in partitions), 0
    for partition in partitions:
        report("Searching events", done, total)
        transact(partial(erase_events.search, partition=partition))
        done += partition.pages


def _clear(transact: Transact, rows: Counter[str], report: OnProgress) -> None:
    left = transact(erase_events.left)
    total, done = sum(left.values()), 0
    for table in (table for table in events.EVENT_TABLES if table.name in left):
        while True:
            batch, cleared = transact(partial(erase_events.clear, table=table))
            if not batch:
                break
            done, rows[table.name] = done + batch, rows[table.name] + cleared
            report("Clearing events", done, max(done, total))


def _delete(transact: Transact, rows: Counter[str]) -> None:
    """Delete from the other tables. What is derived is deleted once no derivation can contain the people any more."""
    for each in erase.DELETED_FIRST:
        rows[each.table.name] += transact(partial(erase.delete, deletion=each))
    transact(erase.lock_out_batches)
    for each in erase.DELETED_LAST:
        rows[each.table.name] += transact(partial(erase.delete, deletion=each))
    _delete_rejects(transact, rows)
    rows[dimensions.CAMPAIGNS.name] += transact(erase_events.rename_campaigns)
    transact(stored_marts.mark)
    for name in stored_marts.WITH_TEXTS:
        transact(partial(stored_marts.renew, name=name))


def _delete_rejects(transact: Transact, rows: Counter[str]) -> None:
    last: str | None = ""
    while last is not None:
        deleted, last = transact(partial(erase_rejects.delete, after=last))
        rows[bookkeeping.REJECTS.name] += deleted
