"""Members of lists. A full read of a list is also a sweep: it finds out who has left without an event that says so."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from klaviyo_pg.catalogue import loads
from klaviyo_pg.errors import NotFound
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import clock, lookups, member_lists, membership_sweeps
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import sweep_ledger, watermarks
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Membership, MembershipPage, Suppression
from klaviyo_pg.windows import AnyWindow
from pipeline.batch import Batch, CleanedFrames, batch_of
from pipeline.chunks import key_of
from pipeline.streams.events import EVENTS
from pipeline.streams.exclusions import EXCLUSIONS
from pipeline.streams.stream import OpenedChunk, Reading, Stream, SweptPart, by_rows
from transforms import membership, people

_BATCH_ROWS = 2_000  # memberships in one transaction: a page has a hundred
_LOOKED_UP_AT_ONCE = 10_000  # people whose addresses are looked up in the warehouse with one query
_ASKED_FOR_AT_ONCE = 100  # people, with a request for each: as many addresses are looked up in a list at once
_LOOKUPS = "member_lookups"  # the watermarks that record up to when people joined who were looked up in a list


class _Sweep:
    """One reading of a list. Only a full read in which every record was readable makes anybody absent.

    What it finds is stored batch by batch under the id of the run, so that a resumed run continues it and a sweep that
    was never finished says nothing to the next one.
    """

    def __init__(self, reading: Reading, list_id: str) -> None:
        self._reading, self._list_id = reading, list_id
        days = reading.run.settings.membership_sweep_days
        self._is_sweep = reading.is_full_read and days > 0
        self._key = key_of(LIST_MEMBERS.name, list_id)
        self._part = SweptPart(reading, self._key)
        self._is_complete = True
        self._looked_up: list[str] = []
        self._asks_by_address = reading.source.dialect.looks_up_memberships
        self._subscribers = _Subscribers(reading, list_id)

    def pages(self) -> Iterator[MembershipPage]:
        """Read the list. It ends early if the list turns out to be deleted."""
        window, addresses = self._reading.window, self._addresses()
        try:
            for page in self._reading.source.memberships(self._list_id, window, addresses):
                self._is_complete &= not page.incomplete
                yield page
        except NotFound:
            self._is_complete = False

    def _addresses(self) -> Iterator[str]:
        """Yield the addresses of people who may be on the list, where the dialect has to be asked for each of them."""
        if not self._asks_by_address:
            return
        for member_id, address in self._subscribers.addresses():
            self._looked_up.append(member_id)
            yield address

    def batch(self, pages: Sequence[MembershipPage]) -> Batch:
        rows = [row for page in pages for row in page.rows]
        suppressed = [row for page in pages for row in page.suppressions]
        met = ((row.member_id, None) for row in rows)
        frames = [
            *(self._part.record(pages) if self._is_sweep else ()),
            (loads.STG_MEMBER_LISTS, membership.memberships(rows, self._reading.run.account_id)),
            (loads.MEMBER_STUBS, people.stubs(met, self._reading.integration_id)),
            (loads.LIST_SUPPRESSIONS, membership.suppressions(suppressed)),
            *self._answers(rows, suppressed),
        ]
        return batch_of(frames, {"stg_member_lists": [reject for page in pages for reject in page.rejects]})

    def _answers(self, rows: Sequence[Membership], suppressed: Sequence[Suppression]) -> CleanedFrames:
        looked_up, self._looked_up = self._looked_up, []
        if not self._is_sweep:
            return []
        answers = [
            *((row.member_id, "found") for row in rows),
            *((row.member_id, "suppressed") for row in suppressed),
            *((each, "asked") for each in looked_up),
        ]
        return [(loads.SWEPT_MEMBERS, membership.swept(self._list_id, self._reading.run.id, answers))]

    def finish(self, account: Account, guard: Guard) -> None:
        """Record who is absent, in the transaction of the last members.

        A sweep whose loss is not believed keeps its answers: a resumed run continues it.
        """
        if self._is_complete:
            self._subscribers.record(account)
        if not self._is_sweep:
            return
        run = self._reading.run
        if self._is_complete and was_readable(account, self._reading, self._key):
            if not membership_sweeps.end_sweep(account, guard, self._list_id, run.id, self._asks_by_address):
                return
            if self._asks_by_address:  # such a dialect returns suppressions by list instead of by person
                membership_sweeps.lift_suppressions(account, self._list_id, run.id)
            key = key_of(membership_sweeps.SWEEPS, self._list_id)
            watermarks.advance(account, key, None, run.as_of, None, self._list_id)
            member_lists.mark_absent_again(account, self._list_id)
        membership_sweeps.delete_sweeps(account, self._list_id)


class _Subscribers:
    """The people who joined any list since the start of a window, to be looked up in a list by their addresses.

    Where the warehouse has no readable addresses, the source is asked for each of them. So all lists of a run share
    them, and a list that was read before asks only for people whose joining was stored after that.
    """

    def __init__(self, reading: Reading, list_id: str) -> None:
        self._reading, self._list_id = reading, list_id
        self._are_readable = reading.run.settings.personal_data == "keep"
        self._key = key_of(_LOOKUPS, list_id)
        self._asked_until: datetime | None = None

    def addresses(self) -> Iterator[tuple[str, str]]:
        """Yield IDs and addresses."""
        since, after = self._since(), ""
        while rows := self._joined(since, after):
            if self._are_readable:
                yield from ((each, address) for each, address in rows if address)
            else:
                yield from self._at_source([each for each, _ in rows])
            after = rows[-1][0]

    def record(self, account: Account) -> None:
        """Record up to when people joined who have been asked for, so that the next read begins there."""
        if self._asked_until is not None:
            watermarks.advance(account, self._key, None, self._asked_until, None, self._list_id)

    def _since(self) -> datetime | None:
        start = self._reading.window.start
        if self._are_readable:
            return start

        def look_up(account: Account) -> tuple[datetime | None, datetime | None]:
            return watermarks.find(account, self._key), clock.oldest_transaction(account.connection)

        asked, self._asked_until = self._reading.transact(look_up)
        return max(start, asked) if start and asked else start

    def _joined(self, since: datetime | None, after: str) -> list[tuple[str, str | None]]:
        def look_up(account: Account) -> list[tuple[str, str | None]]:
            return lookups.subscribers(account, since, after, _LOOKED_UP_AT_ONCE)

        return self._reading.transact(look_up)

    def _at_source(self, ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        for at in range(0, len(ids), _ASKED_FOR_AT_ONCE):
            yield from self._reading.session.addresses.look_up(ids[at : at + _ASKED_FOR_AT_ONCE], self._ask)

    def _ask(self, ids: Sequence[str]) -> dict[str, str]:
        people = (person for page in self._reading.source.people(ids) for person in page.rows)
        return {each.id: address for each in people if (address := each.email or each.phone_number)}


def was_readable(account: Account, reading: Reading, key: str) -> bool:
    """Record that a list or segment was read to its end, and return whether each of its records was readable."""
    assert reading.subject is not None
    sweep_ledger.forget_others(account, reading.run.id, key)
    found = membership_sweeps.count_found(account, reading.subject, reading.run.id)
    return sweep_ledger.finish_part(account, reading.run.id, key, reading.part, True, found)


def _open_list(reading: Reading) -> OpenedChunk:
    assert reading.subject is not None
    sweep = _Sweep(reading, reading.subject)
    return OpenedChunk(sweep.pages(), sweep.batch, sweep.finish)


def _probe(source: Source, window: AnyWindow, list_id: str | None) -> Iterator[MembershipPage]:
    """Begin to read the members of a list, if there is one."""
    return iter(()) if list_id is None else source.memberships(list_id, window)


LIST_MEMBERS = Stream(
    "list_members",
    _open_list,
    by_rows,
    _BATCH_ROWS,
    (loads.STG_MEMBER_LISTS, loads.LIST_SUPPRESSIONS, loads.SWEPT_MEMBERS, loads.SWEEPS),
    schedule="every daily run for new members; all members every MEMBERSHIP_SWEEP_DAYS",
    probe=_probe,
    cursor="joined_group_at",
    subject="list",
    needs=frozenset({EVENTS.name, EXCLUSIONS.name}),  # which show who on a list may not be contacted any more
)
