"""The claims that a process holds, kept through lost connections to the database. Knows no run and no stream."""

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import NoReturn

import psycopg
from psycopg.errors import LockNotAvailable

from klaviyo_pg.errors import Busy, ClaimLost, DatabaseAway, DatabaseUnusable
from klaviyo_pg.postgres import accounts, claims, clock
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.connect import translated
from klaviyo_pg.postgres.ledgers import run_ledger
from klaviyo_pg.settings import Settings
from pipeline.stop import StopFlag

_POLL_SECONDS = 0.5  # between two looks at the claims


@dataclass(eq=False)
class _Claim:
    """A claim that is held by a connection, which is a session of the server."""

    account: Account
    what: str
    server_session: int
    is_vital: bool

    @property
    def is_held(self) -> bool:
        """True if its connection still holds it."""
        try:
            return claims.is_held_by(self.account, self.what, self.server_session)
        except psycopg.OperationalError:
            return False

    def release(self) -> None:
        """Release it, unless it was lost."""
        with suppress(psycopg.Error):
            claims.release(self.account.connection)


class HeldClaims:
    """The claims of a session of this process, by name: locks that Postgres drops with their connection.

    A claim that was lost with its connection is taken again. If another process has taken it, the session stops, unless
    the claim is not vital: then the session no longer holds it. `connect` opens a connection in autocommit mode.
    """

    def __init__(
        self, settings: Settings, session_id: str, stop: StopFlag, connect: Callable[[], psycopg.Connection]
    ) -> None:
        self._settings, self._session_id, self._stop, self._connect = settings, session_id, stop, connect
        self._lock = threading.RLock()
        self._claims: list[_Claim] = []
        self._taken_over: Busy | None = None
        self._renewed_at = 0.0

    def take(self, integration_id: str, what: str, is_vital: bool = True) -> None:
        """Claim something of an account, such as a flow, until it is released or the process ends.

        Raises Busy where another process holds the claim.

        An attempt to begin something that failed may have left its claim: that is released.
        """
        with self._lock, translated():
            for each in [each for each in self._claims if each.what == what]:
                self._end(each)
                self._claims.remove(each)
            self._claims.append(self._claimed(integration_id, what, is_vital))

    def _end(self, claim: _Claim) -> None:
        """Release a claim, also one whose session only the server still has."""
        try:
            claims.release(claim.account.connection)
        except psycopg.Error:
            with closing(self._connect()) as connection:
                account = self._account(connection, claim.account.integration_id)
                claims.end_holder(account, claim.what, claim.server_session)

    def _account(self, connection: psycopg.Connection, integration_id: str) -> Account:
        return Account(connection, self._settings.warehouse_schema, integration_id)

    def _claimed(self, integration_id: str, what: str, is_vital: bool, lost: int | None = None) -> _Claim:
        """Claim something on a new connection. `lost` is the server's session that held the claim before.

        Raises Busy where another process holds the claim, or has taken what was lost, and DatabaseAway where that
        cannot be known yet.
        """
        account = self._account(self._connect(), integration_id)
        try:
            if lost is not None:
                claims.end_holder(account, what, lost)
            is_claimed = _try_claim(account, what)
            is_taken_over = lost is not None and run_ledger.is_taken(account, what, self._session_id)
            if is_claimed and not is_taken_over:
                return _Claim(account, what, claims.session_of(account.connection), is_vital)
            may_come_back = lost is not None and not is_taken_over and _has_takers(account, what)
        except BaseException:
            account.connection.close()
            raise
        claims.release(account.connection)
        if may_come_back:
            raise DatabaseAway(
                f"Another session of the database still holds the lock of this {what} run of "
                f"{self._settings.klaviyo_integration}. Rerun later to resume."
            )
        raise claims.busy(self._settings.klaviyo_integration, what)

    def renew(self) -> None:
        """Take again the claims that were lost with their connection, for example when the database restarted.

        Raises DatabaseAway while the database accepts no connection, and Busy where another process has taken a vital
        claim, even if it has released it since; then this session stops, and never takes the claim again, because the
        other process has read, or forgotten, what this one would continue.
        """
        with self._lock, translated():
            self._check_not_taken_over()
            for each in tuple(self._claims):
                if not each.is_held:
                    each.account.connection.close()
                    self._take_again(each)

    def _take_again(self, lost: _Claim) -> None:
        try:
            claimed = self._claimed(lost.account.integration_id, lost.what, lost.is_vital, lost.server_session)
        except Busy:
            if lost.is_vital:
                self._stop_session(lost)
            self._claims.remove(lost)
        else:
            self._claims[self._claims.index(lost)] = claimed

    def _stop_session(self, lost: _Claim) -> NoReturn:
        """Stop the session, whose claim another process has taken, and raise Busy."""
        self._taken_over = Busy(
            f"The database ended the session of this {lost.what} run of {self._settings.klaviyo_integration}, and "
            "another run has taken over: wait for it to finish."
        )
        self._stop.request(self._taken_over)
        raise self._taken_over from None

    def keep(self) -> None:
        """Renew the claims, unless that was done a moment ago, as far as the database allows it.

        While it is away, nothing is lost that another process could take. Raises Busy like `renew`.
        """
        if monotonic() - self._renewed_at >= _POLL_SECONDS:
            with suppress(DatabaseUnusable):  # which the next transaction reports
                self.renew()
            self._renewed_at = monotonic()

    def _check_not_taken_over(self) -> None:
        if self._taken_over is not None:
            raise Busy(str(self._taken_over))

    @property
    def are_lost(self) -> bool:
        """True if another process has taken a vital claim, and with it the run."""
        return self._taken_over is not None

    def hold_for_transaction(self, connection: psycopg.Connection) -> datetime:
        """Keep the claims for a transaction: until it ends, no other process can begin its work.

        Return the database's time at the start of the transaction. Raises ClaimLost if a claim was lost, and Busy if
        another process has taken it.
        """
        self._check_not_taken_over()
        time = None
        for each in tuple(self._claims):
            account = self._account(connection, each.account.integration_id)
            time = claims.hold_for_transaction(account, each.what, each.server_session)
            if time is None:
                raise ClaimLost
        return time or clock.present(connection)

    def __contains__(self, what: str) -> bool:
        """Return whether there is a claim of this name."""
        return any(each.what == what for each in self._claims)

    def release(self, what: str) -> None:
        """Release the claims of this name."""
        with self._lock:
            released = [each for each in self._claims if each.what == what]
            self._claims = [each for each in self._claims if each.what != what]
        for each in released:
            each.release()

    def release_all(self) -> None:
        """Release all claims."""
        while self._claims:
            self._claims.pop().release()


def _try_claim(account: Account, what: str) -> bool:
    """Claim something. Returns False if another session holds it, or a transaction of the last holder has not ended."""
    try:
        if not claims.try_claim(account, what):
            return False
        claims.wait_for_last_holder(account, what)
    except LockNotAvailable:
        return False
    return True


def _has_takers(account: Account, what: str) -> bool:
    """Return whether each run that claims this records, a moment later, that it has taken it."""
    return what in claims.FLOWS and accounts.stays(account)
