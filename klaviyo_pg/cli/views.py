"""The command `views`: a schema of views over an account, with the tables that dbt_klaviyo reads."""

from argparse import Namespace
from functools import partial

from klaviyo_pg.catalogue import attribution, events, fivetran
from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.warehouse import chosen_account, open_warehouse
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres import view_schema
from klaviyo_pg.postgres.schema_lock import change_patiently
from klaviyo_pg.postgres.view_schema import Upgraded

_LONGEST_NAME = 63  # bytes of a name in Postgres
_NOT_DIMENSIONS = frozenset({attribution.EVENT_ATTRIBUTIONS.name, *(table.name for table in events.EVENT_TABLES)})


def views(arguments: Namespace) -> int:
    """Create and upgrade the schema of views over an account, or drop it."""
    settings = check_settings(klaviyo_integration=arguments.integration)
    name, target = settings.klaviyo_integration, arguments.schema
    _check_name(target)
    with open_warehouse(settings) as connection:
        account = chosen_account(connection, settings.warehouse_schema, name)
        connection.commit()  # while others use the views, nothing is held that they could wait for
        if arguments.drop:
            _report_drop(name, target, change_patiently(connection, partial(view_schema.drop, account, target), print))
        else:
            _report(name, target, change_patiently(connection, partial(view_schema.upgrade, account, target), print))
    return 0


def _check_name(target: str) -> None:
    if not target.strip() or "\0" in target:
        raise BadSettings("--schema must not be blank.")
    if len(target.encode()) > _LONGEST_NAME:
        raise BadSettings(f"--schema {target} is longer than the {_LONGEST_NAME} bytes that Postgres allows.")
    if "%" in target:
        raise BadSettings(f"--schema {target} must not contain a percent sign. Choose another one.")
    if target.startswith("pg_") or target == "information_schema":
        raise BadSettings(f"--schema {target} is a name that Postgres reserves. Choose another one.")


def _report_drop(name: str, target: str, was_there: bool) -> None:
    if not was_there:
        raise BadSettings(f"Nothing was dropped: the schema {target} has no views of {name}.")
    print(f"Dropped the views of {name} in the schema {target}.")


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
