"""The sweep of a list: reading all of its members, and so learning who has left without an event that says so."""

from collections.abc import Iterable, Iterator, Sequence
from uuid import uuid4

import polars as pl
from psycopg import Connection

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.errors import NotFound
from klaviyo_pg.klaviyo.rows import Membership, MembershipPage
from klaviyo_pg.postgres import ledger
from klaviyo_pg.postgres.membership import end_sweep, forget_sweeps
from klaviyo_pg.windows import Window
from tasks.plan import sweep_stream
from tasks.run import Run
from transforms.membership import swept


class Sweep:
    """One reading of a list. Only one without bounds that met nothing unreadable makes anybody absent.

    What it found is noted batch by batch under an id of its own, so that one that broke off tells the next one nothing.
    """

    def __init__(self, run: Run, list_id: str, window: Window) -> None:
        self.list_id = list_id
        self._run = run
        self._id = uuid4().hex
        self._is_sweep = window == Window(None, None) and run.settings.membership_sweep_days > 0
        self._is_complete = True
        self._only_asked = False
        self._asked: list[str] = []

    def asking(self, people: Iterable[tuple[str, str]] | None) -> Iterator[str]:
        """The addresses of people (id, address) as they are asked for; None: the source tells of all by itself."""
        self._only_asked = people is not None
        return self._addresses(people or ())

    def _addresses(self, people: Iterable[tuple[str, str]]) -> Iterator[str]:
        for member_id, address in people:
            self._asked.append(member_id)
            yield address

    def noting(self, pages: Iterable[MembershipPage]) -> Iterator[MembershipPage]:
        """The pages, up to where the list turns out to be deleted."""
        try:
            for page in pages:
                self._is_complete &= not any(reject.hides for reject in page.rejects)
                yield page
        except NotFound:
            self._is_complete = False  # deleted since it was listed

    def answers(self, found: Sequence[Membership]) -> list[tuple[Load, pl.DataFrame]]:
        """What to store beside these members; nothing, if this is no sweep."""
        asked, self._asked = self._asked, []
        if not self._is_sweep:
            return []
        return [(loads.SWEPT_MEMBERS, swept(self.list_id, self._id, (row.member_id for row in found), asked))]

    def end(self, connection: Connection) -> None:
        """Note who is absent, in the transaction of the last members."""
        if not self._is_sweep:
            return
        where = (connection, self._run.schema, self._run.integration_id)
        if self._is_complete:
            end_sweep(*where, self.list_id, self._id, self._only_asked)
            ledger.advance_watermark(*where, sweep_stream(self.list_id), None, self._run.as_of)
        forget_sweeps(*where, self.list_id)
