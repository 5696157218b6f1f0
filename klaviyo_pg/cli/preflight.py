"""Checks of a command before it starts anything: its settings and arguments, then the database and the account.

Importing this module imports little, so that a wrong setting or argument is reported at once.
"""

from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from types import MappingProxyType

from klaviyo_pg import env_file
from klaviyo_pg.cli.output import print_warning
from klaviyo_pg.environment import override
from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.moments import parse_moment, parse_since
from klaviyo_pg.settings import Settings, ignored_variables, load_settings, name_in_use
from klaviyo_pg.windows import Window, history_window

_LABELS = MappingProxyType({"klaviyo_integration": "--integration"})
Check = Callable[[Namespace], object]
"""Raises BadSettings if an argument is invalid."""


def check_daily(arguments: Namespace) -> None:
    """Check the arguments of the daily flow."""
    parse_since("--since", arguments.since)


def check_backfill(arguments: Namespace) -> Window:
    """Check the arguments of the backfill, and return the window that they name."""
    start = parse_moment("--start", arguments.start)
    end = None if arguments.end is None else parse_moment("--end", arguments.end)
    return history_window(datetime.now(UTC), start, end, load_settings().events_kept_since)


def check_reconcile(arguments: Namespace) -> None:
    """Check the arguments of the reconcile flow."""
    settings = load_settings({"reconcile_days": "--days"}, reconcile_days=arguments.days)
    settings.check_reconcile_days("RECONCILE_DAYS" if arguments.days is None else "--days")


def check_settings(**changes: object) -> Settings:
    """Return the settings, and warn about variables of the environment that look like misspelled settings."""
    settings = load_settings(**changes)
    env_file.export_to_libraries()
    for sentence in ignored_variables():
        print_warning(sentence, settings.klaviyo_integration)
    return settings


def use_demo_account(arguments: Namespace) -> str:
    """Let the command use the embedded Postgres and the name of the sandbox's account, whatever the settings have.

    Return what has to precede later commands for the same warehouse.
    """
    prefix = f"{name_in_use('DATABASE_URL')}= " if load_settings().database_url else ""
    override({"DATABASE_URL": ""})
    arguments.integration = arguments.integration or arguments.sandbox.name
    return prefix


def check_run(arguments: Namespace, check_arguments: Check, flow: str | None) -> None:
    """Check everything that a run of a flow needs. Raises the error with which the run would be refused.

    Without a flow, nothing is run or stored, and the warehouse is not checked. A sandbox is not checked either: it is
    not there yet, and its database is the embedded one.
    """
    if not arguments.sandbox:
        settings = load_settings(_LABELS, klaviyo_integration=arguments.integration)
        _record_error(settings, flow, lambda: _check_key_and_warehouse(settings, flow))
    check_arguments(arguments)
    chosen = load_settings(
        _LABELS, klaviyo_integration=arguments.integration, metrics=arguments.metrics, tables=arguments.tables
    )
    _record_error(chosen, None if arguments.sandbox else flow, lambda: _check_selection(chosen))
    if not arguments.sandbox:
        _record_error(chosen, flow, lambda: _check_database_and_account(chosen, flow))


def _record_error(settings: Settings, flow: str | None, check: Callable[[], None]) -> None:
    """Run a check, and record in the warehouse with which error it refuses a run of the flow."""
    try:
        check()
    except KlaviyoPgError as error:
        if flow is not None:
            from pipeline import refused  # imports the database driver

            refused.record(settings, flow, error)
        raise


def _check_selection(settings: Settings) -> None:
    if settings.tables:
        from pipeline.streams.selection import selection_of

        selection_of(settings)


def _check_database_and_account(settings: Settings, flow: str | None) -> None:
    from klaviyo_pg.cli.reachable import check_database_and_account

    check_database_and_account(settings, flow)


def _check_key_and_warehouse(settings: Settings, flow: str | None) -> None:
    settings.api_key  # noqa: B018  # raises BadKey if it is missing
    if flow is not None:
        settings.check_warehouse()
