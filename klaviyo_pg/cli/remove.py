"""The command that removes an account from the warehouse, with everything that is stored of it."""

from argparse import Namespace
from contextlib import closing
from functools import partial

from klaviyo_pg.cli.deleting import answer, check_terminal, print_rows
from klaviyo_pg.cli.output import print_warning
from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.progress_lines import ProgressLines
from klaviyo_pg.cli.warehouse import chosen_account, open_warehouse, warehouse_url
from klaviyo_pg.postgres import accounts, idle, schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.connect import connect
from klaviyo_pg.postgres.erasing import removal
from klaviyo_pg.postgres.schema_lock import change_patiently
from klaviyo_pg.postgres.views import view_schema
from klaviyo_pg.settings import Settings
from pipeline import spool
from pipeline.commands.removing import remove_account


def remove(arguments: Namespace) -> int:
    """Remove an account from the warehouse, and its spool from this machine."""
    settings, name = check_settings(), arguments.name
    schema_name = settings.warehouse_schema
    with open_warehouse(settings) as connection:
        account = chosen_account(connection, schema_name, name, "name")
        connection.commit()
        schema.upgrade_patiently(connection, schema_name, schema.storage_of(settings), print_warning)
        if not (arguments.yes or _is_confirmed(account, name)):
            print("Nothing was removed.")
            return 1
        with closing(connect(warehouse_url(settings), schema_name)) as other:
            holder = Account(other, schema_name, account.integration_id)
            prepare = partial(_delete_what_is_elsewhere, account, settings)
            rows = remove_account(account, holder, name, prepare, ProgressLines().report)
    print_rows(f"{name}: removed", {table: number for table, number in rows.items() if number})
    print(
        f"Removed {name}. Runs with KLAVIYO_INTEGRATION={name} would load it again: take that out of .env, deployments "
        "and blocks."
    )
    return 0


def _is_confirmed(account: Account, name: str) -> bool:
    """Show how many rows the account has, and have its name typed. What was confirmed before is not asked again."""
    with account.connection.transaction():
        if not accounts.stays(account):
            print(f"Resuming to remove {name}.")
            return True
        idle.keep_runs_out(account, name)
    check_terminal("removed")
    with account.connection.transaction():
        rows = removal.estimate(account)
    print_rows(f"{name}: rows to delete, about", {table: number for table, number in rows.items() if number})
    return answer(f"This deletes all of these rows and cannot be undone. Type {name} to remove it: ") == name.strip()


def _delete_what_is_elsewhere(account: Account, settings: Settings) -> None:
    """Drop the views over the account, and delete its spool on this machine."""
    with account.connection.transaction():
        names = view_schema.schemas_of(account)
    for name in names:
        change_patiently(account.connection, partial(view_schema.drop_own, account, name), print_warning)
    spool.delete(settings.spool_dir / account.integration_id)
