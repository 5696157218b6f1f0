"""The command that saves settings as blocks on the Prefect server. What a block contains is in tasks.save_blocks."""

from argparse import Namespace

from klaviyo_pg.cli.startup import Startup


def save_blocks(arguments: Namespace) -> int:
    """Save the account and the warehouse as the blocks that are named."""
    with Startup(uses_sandbox=False) as startup:
        from tasks.local import check_server
        from tasks.save_blocks import make, save

        blocks = make(arguments.klaviyo, arguments.warehouse)
        startup.wait()
        if startup.must_check_server:
            check_server()
        save(blocks)
    return 0
