"""The command `rename`: another name for an account of the warehouse."""

from argparse import Namespace

from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.warehouse import chosen_account, open_warehouse
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres import accounts, idle


def rename(arguments: Namespace) -> int:
    """Give an account another name."""
    settings, old, new = check_settings(), arguments.old, arguments.new
    schema_name = settings.warehouse_schema
    if not new.strip():
        raise BadSettings("The new name must not be blank.")
    with open_warehouse(settings) as connection:
        account = chosen_account(connection, schema_name, old, "name")
        if accounts.find(connection, schema_name, new) is not None:
            raise BadSettings(f"There is an account {new} in the schema {schema_name} already. Choose another name.")
        idle.keep_runs_out(account, old)
        accounts.rename(connection, schema_name, old, new)
    print(f"Renamed {old} to {new}. Set KLAVIYO_INTEGRATION={new}, also in deployments and blocks.")
    return 0
