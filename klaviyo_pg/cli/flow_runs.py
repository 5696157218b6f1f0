"""The commands that run a flow: daily, backfill and reconcile.

Each starts what it needs before it imports what takes seconds, so that both happen at the same time.
"""

from argparse import Namespace

from klaviyo_pg.cli.startup import Startup


def daily(arguments: Namespace) -> int:
    """Run the daily flow."""
    with Startup(arguments.sandbox) as startup:
        from klaviyo_pg.cli.flow_run import check_daily, run

        return run(startup, arguments, check_daily, ("integration", "since", "metrics", "tables"))


def backfill(arguments: Namespace) -> int:
    """Run the backfill, or print its plan."""
    with Startup(arguments.sandbox, needs_server=not arguments.plan) as startup:
        from klaviyo_pg.cli.flow_run import check_backfill, run, show_plan

        if arguments.plan:
            return show_plan(startup, arguments)
        parameters = ("start", "end", "integration", "metrics", "restart", "distribute")
        return run(startup, arguments, check_backfill, parameters)


def reconcile(arguments: Namespace) -> int:
    """Run the reconcile flow."""
    with Startup(arguments.sandbox) as startup:
        from klaviyo_pg.cli.flow_run import check_reconcile, run

        return run(startup, arguments, check_reconcile, ("integration", "days", "metrics"))
