"""The command that schedules the runs of an account on the Prefect server. How it does is in tasks.scheduling."""

from argparse import Namespace

from klaviyo_pg.cli.startup import Startup


def schedule(arguments: Namespace) -> int:
    """Schedule the runs of the account in a block, or end that."""
    with Startup(None, arguments.began) as startup:
        from tasks import scheduling
        from tasks.local import check_server

        crons = {"daily": arguments.daily, "reconcile": arguments.reconcile}
        startup.wait()
        if startup.must_check_server:
            check_server()
        if arguments.off:
            sentences = scheduling.unschedule(arguments.account, crons)
        else:
            sentences = scheduling.schedule(arguments.account, arguments.warehouse, crons, arguments.timezone)
    print("\n".join(sentences))
    return 0
