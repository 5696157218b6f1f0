"""The command `check`: tries the key and the database, and prints what runs may read and how many requests they need.

It checks everything that can be checked before it exits, writes nothing, and prints no secrets.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Iterable
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.errors import KlaviyoPgError, MissingScope, Refused
from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.klaviyo.pace import Pace
from klaviyo_pg.klaviyo.page_sizes import PageSizes
from klaviyo_pg.settings import Settings
from pipeline.commands.check.account import AccountCheck, AccountFindings
from pipeline.commands.check.database import DatabaseCheck
from pipeline.commands.check.forecast import KEY, Forecast, minutes
from pipeline.session import present
from pipeline.streams import STREAMS
from pipeline.streams.selection import Selection, selection_of

_ATTEMPTS = 3  # of one request: a wrong address should be reported soon
_CAPTION = (
    "Requests of a run, and minutes at the API's limit. A sweep, a full read, takes so many every so many days (d)."
)
_CODES = (2, 1, 4, 3)  # of errors, the most important one first


def check(arguments: Namespace) -> int:
    """Check the settings, the account and the database, and return the exit code."""
    settings = check_settings(
        klaviyo_integration=arguments.integration, metrics=arguments.metrics, tables=arguments.tables
    )
    return examine(settings, selection_of(settings), not arguments.no_forecast, arguments.json)


def examine(settings: Settings, wanted: Selection, with_forecast: bool, as_json: bool = False) -> int:
    """Check the account and the database, print everything that was found, and return the exit code."""
    found, database = _examined(settings, wanted, with_forecast)
    if as_json:
        print(json.dumps(_document(settings, found, database), indent=2))
    else:
        _print(settings, found, database)
    return exit_code(found.errors)


def _examined(settings: Settings, wanted: Selection, with_forecast: bool) -> tuple[AccountFindings, str]:
    """Return what was found, and a sentence about the database."""
    found = AccountFindings()
    api_time: datetime | None = None
    with Status("Trying the API key", console=Console(stderr=True)) as status:
        try:
            pace = Pace(settings.rate_limit_share, settings.retry_budget_seconds)
            few = settings.model_copy(update={"request_attempts": min(_ATTEMPTS, settings.request_attempts)})
            source = open_source(few, pace, PageSizes())
            found = AccountCheck(source, pace, settings, wanted, present()).run(with_forecast, status.update)
            api_time = source.api_time
        except KlaviyoPgError as error:
            found.add(error)
        status.update("Trying the database")
        return found, DatabaseCheck(settings, found, present, api_time).run()


def _print(settings: Settings, found: AccountFindings, database: str) -> None:
    print(_account(settings, found))
    print(database)
    if found.access:
        Console().print(_table(settings, found))
    _print_totals(found)
    for sentence in [*found.warnings, *map(str, found.errors)]:
        print(sentence, file=sys.stderr)


def _document(settings: Settings, found: AccountFindings, database: str) -> dict[str, object]:
    """Return what was found as values for JSON. What is unknown, or was not asked for, is null."""
    return {
        "integration": settings.klaviyo_integration,
        "account_id": found.account_id,
        "database": database,
        "streams": [_stream(name, found) for name in _names(found)],
        "warnings": found.warnings,
        "errors": [str(error) for error in found.errors],
        "exit_code": exit_code(found.errors),
    }


def _stream(name: str, found: AccountFindings) -> dict[str, object]:
    access, made = found.access.get(name), found.forecast.get(name)
    return {
        "stream": name,
        "access": access.text if access else None,
        "is_allowed": access.is_allowed if access else None,
        "requests_of_first_run": made.first if made else None,
        "requests_of_daily_run": made.daily if made else None,
        "is_first_run_lower_bound": made.is_first_least if made else None,
        "is_daily_run_lower_bound": made.is_daily_least if made else None,
        "requests_of_sweep": made.sweep if made else None,
        "days_between_sweeps": made.days if made and made.sweep else None,
        "requests_allowed_per_minute": found.limits.get(found.endpoints.get(name, "")),
    }


def _names(found: AccountFindings) -> list[str]:
    """Return the names of everything that was tried or estimated, in order."""
    return list(dict.fromkeys([KEY, *found.access, *found.forecast]))


def exit_code(errors: Iterable[KlaviyoPgError]) -> int:
    """Return the exit code for several errors: that of what has to be changed first.

    A run leaves out what Klaviyo refuses, and ends as partial.
    """
    codes = {MissingScope.exit_code if isinstance(error, Refused) else error.exit_code for error in errors}
    return next((code for code in _CODES if code in codes), 0)


def _account(settings: Settings, found: AccountFindings) -> str:
    name = f"{settings.klaviyo_integration}: {settings.klaviyo_base_url} ({settings.klaviyo_dialect})"
    if found.account_id:
        return f"{name}, account {found.account_id}"
    return f"{name}{', the API key is accepted' if found.access else ''}"


def _table(settings: Settings, found: AccountFindings) -> Table:
    table = Table(title=escape(f"{settings.klaviyo_integration}: streams and requests"), box=None, padding=(0, 1, 0, 0))
    table.caption, table.caption_justify = _CAPTION, "left"
    for name in ("stream", "access"):
        table.add_column(name, no_wrap=True)
    for name in ("first run", "minutes", "daily run", "minutes", "sweep"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in _names(found):
        access, made = found.access.get(name), found.forecast.get(name)
        cells = _cells(name, made, found) if made else ()
        table.add_row(_title(name), escape(access.text) if access else "", *cells)
    return table


def _title(name: str) -> str:
    return STREAMS[name].title if name in STREAMS else name.replace("_", " ")


def _cells(name: str, made: Forecast, found: AccountFindings) -> list[str]:
    limit = found.limits.get(found.endpoints.get(name, ""))
    sweep = f"{made.sweep:,}/{made.days:g} d" if made.sweep else ""
    return [
        _number(made.first, made.is_first_least),
        _minutes(made.first, limit),
        _number(made.daily, made.is_daily_least),
        _minutes(made.average, limit),
        sweep,
    ]


def _number(requests: int | None, is_least: bool) -> str:
    if requests is None:
        return "unknown"
    return f"{requests:,}{'+' if is_least else ''}"


def _minutes(requests: float | None, limit: int | None) -> str:
    return "" if not requests or limit is None else f"{requests / limit:.1f}"


def _print_totals(found: AccountFindings) -> None:
    """Print the totals of a first and of a daily run."""
    made = found.forecast
    first = {name: (each.first, each.is_first_least) for name, each in made.items()}
    daily = {name: (each.average, each.is_daily_least) for name, each in made.items()}
    for title, number in (("A first run", first), ("A daily run, with its share of the sweeps,", daily)):
        known = {name: requests for name, (requests, _) in number.items() if requests is not None}
        if known:
            is_least = len(known) < len(number) or any(each for _, each in number.values())
            least = "at least " if is_least else ""
            time = minutes(known, found.endpoints, found.limits)
            limited = f", which take {time:.1f} minutes at the API's limits" if time else ""
            print(f"{title} needs {least}{sum(known.values()):,.0f} requests{limited}.")
