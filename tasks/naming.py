"""What runs are called in Prefect: by their flow and account, since one deployment serves several."""

import os

from prefect.runtime import flow_run


def run_name() -> str:
    """The flow and what its parameters or, without them, the environment say of the account."""
    given = flow_run.parameters
    account = given.get("integration") or given.get("klaviyo") or os.environ.get("KLAVIYO_INTEGRATION") or "default"
    return f"{flow_run.flow_name} {account}"
