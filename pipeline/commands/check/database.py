"""The check of the database before a first run: the connection, privileges, names, clocks. Writes nothing."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial

from psycopg import Connection
from psycopg.errors import InsufficientPrivilege

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.postgres import clock
from klaviyo_pg.postgres.connect import connect, tables_may_be_missing, translated
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.settings import Settings
from pipeline import checks
from pipeline.clocks import Clocks, check_with_api
from pipeline.commands.check.account import AccountFindings
from pipeline.session import Clock, Session


class DatabaseCheck:
    """One check of the database of the settings; adds what is wrong to `found`. `api_time` is the API's clock."""

    def __init__(self, settings: Settings, found: AccountFindings, now: Clock, api_time: datetime | None) -> None:
        self._settings, self._found, self._now, self._api_time = settings, found, now, api_time
        self._session = Session(settings)

    def run(self) -> str:
        """Check everything that can be checked, and return a line about the database."""
        settings = self._settings
        lines: list[str] = []
        self._try(settings.check_warehouse)
        if settings.database_url is None and not embedded.exists(settings.data_dir):
            self._try(self._check_api_clock)
            return f"Embedded Postgres in {settings.data_dir.absolute()}: starts with the first run"
        self._try(self._session.check_claims_work, lambda: lines.append(self._connected()))
        if lines:
            return lines[0]
        self._try(self._check_api_clock)
        return "Database: not usable"

    def _try(self, *steps: Callable[[], object]) -> None:
        """Take each step, also after one has failed."""
        for step in steps:
            try:
                step()
            except KlaviyoPgError as error:
                self._found.add(error)

    def _connected(self) -> str:
        settings = self._settings
        with translated(), connect(embedded.warehouse_url(settings), settings.warehouse_schema) as connection:
            clocks = Clocks(self._now(), clock.present(connection), self._api_time)
            self._try(
                partial(checks.check_writable, connection, settings),
                partial(checks.check_ownership, connection, settings),
                partial(self._check_name, connection),
                partial(clocks.check, self._session.clock_tolerance),
            )
            sentences = (
                checks.encryption_warning(connection),
                checks.time_zone_warning(connection, self._found.timezone),
            )
            self._found.warnings += filter(None, sentences)
            info, tls = connection.info, ", TLS" if connection.pgconn.ssl_in_use else ""
            version = info.server_version // 10_000
            return f"Postgres {version}, database {info.dbname}, schema {settings.warehouse_schema}{tls}"

    def _check_name(self, connection: Connection) -> None:
        """Check the account's name and protection, if the warehouse has tables that this user may read."""
        with suppress(InsufficientPrivilege), tables_may_be_missing(), connection.transaction():
            checks.check_registration(connection, self._settings, self._found.account_id)

    def _check_api_clock(self) -> None:
        if self._api_time is not None:
            check_with_api(self._now(), self._api_time, self._session.clock_tolerance)
