"""The commands that run a flow: daily, backfill and reconcile.

Each checks what the user may have got wrong before it starts a server. It starts what it needs before it imports the
rest of what takes seconds, so that both happen at the same time.
"""

from argparse import Namespace
from collections.abc import Sequence

from klaviyo_pg.cli.preflight import Check, check, check_backfill, check_daily, check_reconcile
from klaviyo_pg.cli.startup import Startup


def daily(arguments: Namespace) -> int:
    """Run the daily flow."""
    return _run(arguments, check_daily, ("integration", "since", "metrics", "tables"))


def backfill(arguments: Namespace) -> int:
    """Run the backfill, or print its plan."""
    if not arguments.plan:
        parameters = ("start", "end", "integration", "metrics", "tables", "restart", "distribute")
        return _run(arguments, check_backfill, parameters)
    check(arguments, check_backfill, flow=None)
    with Startup(arguments.sandbox, arguments.began, needs_server=False) as startup:
        from klaviyo_pg.cli.flow_run import show_plan

        return show_plan(startup, arguments)


def reconcile(arguments: Namespace) -> int:
    """Run the reconcile flow."""
    return _run(arguments, check_reconcile, ("integration", "days", "metrics", "tables"))


def _run(arguments: Namespace, check_arguments: Check, parameters: Sequence[str]) -> int:
    prefix = check(arguments, check_arguments, arguments.command.name)
    with Startup(arguments.sandbox, arguments.began) as startup:
        from klaviyo_pg.cli.flow_run import run

        return run(startup, arguments, prefix, parameters)
