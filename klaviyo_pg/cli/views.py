"""The command `views`: a schema of views over an account, with the tables that dbt_klaviyo reads."""

import re
from argparse import Namespace
from functools import partial

from klaviyo_pg.catalogue import attribution, events, fivetran
from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.warehouse import chosen_accounts, open_warehouse
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.schema_lock import change_patiently
from klaviyo_pg.postgres.views import view_schema
from klaviyo_pg.postgres.views.view_schema import Upgraded

_LONGEST_NAME = 63  # bytes of a name in Postgres
_ACCOUNT = "{account}"
_SCHEMA = "klaviyo_fivetran"
_OF_EACH = f"{_SCHEMA}_{_ACCOUNT}"
_NOT_DIMENSIONS = frozenset({attribution.EVENT_ATTRIBUTIONS.name, *(table.name for table in events.EVENT_TABLES)})


def views(arguments: Namespace) -> int:
    """Create and upgrade the schemas of views over accounts, or drop them."""
    settings = check_settings(klaviyo_integration=arguments.integration)
    pattern = arguments.schema or (_OF_EACH if arguments.all else _SCHEMA)
    if arguments.all and _ACCOUNT not in pattern:
        raise BadSettings(f"With --all, --schema needs {_ACCOUNT}, because each account has a separate schema.")
    _check_name(pattern)
    with open_warehouse(settings) as connection:
        wanted = None if arguments.all else settings.klaviyo_integration
        accounts = chosen_accounts(connection, settings.warehouse_schema, wanted)
        chosen = [(_named(pattern, name), name, account) for name, account in accounts]
        connection.commit()  # while others use the views, nothing is held that they could wait for
        change = _dropped if arguments.drop else _upgraded
        changed = [change(account, name, target) for target, name, account in chosen]
    if not any(changed):
        missing = (f"the schema {target} has no views of {name}" for target, name, _ in chosen)
        raise BadSettings(f"Nothing was dropped: {', '.join(missing)}.")
    return 0


def _dropped(account: Account, name: str, target: str) -> bool:
    """Drop the views of an account, and return whether there were any."""
    was_there = change_patiently(account.connection, partial(view_schema.drop, account, target), print)
    if was_there:
        print(f"Dropped the views of {name} in the schema {target}.")
    return was_there


def _upgraded(account: Account, name: str, target: str) -> bool:
    """Create or change the views of an account, which are there afterwards."""
    _report(name, target, change_patiently(account.connection, partial(view_schema.upgrade, account, target), print))
    return True


def _named(pattern: str, account: str) -> str:
    """Return the schema of an account: letters, digits and underscores of its name, which need no quotes in SQL."""
    target = pattern.replace(_ACCOUNT, re.sub(r"\W", "_", account.lower()))
    _check_name(target)
    return target


def _check_name(target: str) -> None:
    if not target.strip() or "\0" in target:
        raise BadSettings("--schema must not be blank.")
    if len(target.encode()) > _LONGEST_NAME:
        raise BadSettings(f"--schema {target} is longer than the {_LONGEST_NAME} bytes that Postgres allows.")
    if "%" in target:
        raise BadSettings(f"--schema {target} must not contain a percent sign. Choose another one.")
    if target.startswith("pg_") or target == "information_schema":
        raise BadSettings(f"--schema {target} is a name that Postgres reserves. Choose another one.")


def _report(name: str, target: str, done: Upgraded) -> None:
    names = ", ".join(view.name for view in fivetran.VIEWS)
    verb = "Created or changed" if done.changed else "Already up to date"
    print(f"{verb}: {', '.join(done.changed) or names} in the schema {target}, for {name}.")
    if done.recreated:
        print(f"Grant access again to {', '.join(done.recreated)}: a column went away, so the view was dropped first.")
    dimensions = [table for table in done.empty if table not in _NOT_DIMENSIONS]
    if dimensions:
        print(
            f"No rows of {', '.join(dimensions)} are stored for {name}, so views are empty. Does TABLES leave them out?"
        )
    if attribution.EVENT_ATTRIBUTIONS.name in done.empty:
        print(
            f"No attributions are stored for {name}, so event has no property_attribution, and dbt_klaviyo attributes "
            "orders by itself. Rerun this command once there are some."
        )
