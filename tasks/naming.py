"""Names of runs in Prefect: by flow and account, since one deployment serves several accounts."""

import os

from prefect.runtime import flow_run


def run_name() -> str:
    """Return the flow's name, and the account that its parameters or the environment name."""
    parameters = flow_run.parameters
    account = parameters.get("integration") or parameters.get("klaviyo") or os.environ.get("KLAVIYO_INTEGRATION")
    return f"{flow_run.flow_name} {account or 'default'}"
