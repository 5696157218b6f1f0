"""Removing an account from a warehouse, in short transactions: other accounts are loaded, and a rerun resumes it.

From its first transaction on, no run of the account begins, whether or not removing was interrupted.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from klaviyo_pg.postgres import claims
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import removal
from pipeline.erasing import OnProgress, Transact, in_transactions, report_nothing, under_claim


def remove_account(
    account: Account,
    holder: Account,
    name: str,
    prepare: Callable[[], None],
    report: OnProgress = report_nothing,
) -> Mapping[str, int]:
    """Remove the account of this name from all tables, and return the number of rows by table.

    Each transaction on the account's connection is stored when it ends, so that removing can be interrupted at any
    time. A rerun does the rest. The holder's connection keeps runs of the account out. `prepare` is called when they
    are; if it fails, runs of the account can begin afterwards. Raises Busy if a run, or erasing, is in progress.
    """
    with _alone(account, holder, name) as transact:
        prepare()
        transact(removal.record)
        rows = _delete(transact, report)
        transact(partial(removal.finish, name=name))
    return rows


@contextmanager
def _alone(account: Account, holder: Account, name: str) -> Iterator[Transact]:
    with holder.connection.transaction():
        removal.claim(holder, name)
        removal.wait_for_last_holders(account)
        yield under_claim(in_transactions(account), removal.CLAIM, claims.session_of(holder.connection))


def _delete(transact: Transact, report: OnProgress) -> Mapping[str, int]:
    """Delete from each file once, also from those into which rows are moved in the meantime."""
    rows: Counter[str] = Counter()
    done: set[str] = set()
    while ranges := [each for each in transact(removal.ranges) if each.part.file not in done]:
        rows += _delete_ranges(transact, ranges, report)
        done.update(each.part.file for each in ranges)
    return rows


def _delete_ranges(transact: Transact, ranges: Sequence[removal.PageRange], report: OnProgress) -> Counter[str]:
    rows: Counter[str] = Counter()
    done, total = 0, sum(each.end - each.start for each in ranges)
    for each in ranges:
        report("Deleting rows", done, total)
        rows[each.part.table.name] += transact(partial(removal.delete, pages=each))
        done += each.end - each.start
    return rows
