"""The build steps of prefect.yaml: what the environment says about deployments. They run when somebody deploys.

Prefect's own `{{ $NAME }}` puts an empty text where a variable is not set.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect_sqlalchemy import SqlAlchemyConnector

from klaviyo_pg.errors import BadSettings
from tasks.blocks import KlaviyoCredentials, load_block

_DEPLOYMENT = "daily/daily"  # all deployments have the same blocks


def from_environment(**defaults: str) -> dict[str, str]:
    """Each variable's value, or its default. PROJECT_DIR is the folder that is deployed from, where it is not set."""
    defaults.setdefault("PROJECT_DIR", str(Path.cwd()))
    return {name: os.environ.get(name) or default for name, default in defaults.items()}


def blocks_from_environment(klaviyo: str, warehouse: str) -> dict[str, str | None]:
    """Return the blocks that runs use unless they name others: those that these two variables name.

    If a variable is not set, the block of the existing deployment stays. An empty one stands for the environment of
    runs. Raises SystemExit if the server has no such block. Any other error would reach the user as a traceback of
    Prefect's.
    """
    deployed = _deployed_blocks()
    return {
        "klaviyo": _block(klaviyo, KlaviyoCredentials, deployed.get("klaviyo")),
        "warehouse": _block(warehouse, SqlAlchemyConnector, deployed.get("warehouse")),
    }


def _deployed_blocks() -> Mapping[str, Any]:
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(_DEPLOYMENT).parameters
        except ObjectNotFound:
            return {}


def _block(variable: str, kind: type[Block], deployed: str | None) -> str | None:
    name = os.environ.get(variable)
    if name is None and deployed:
        print(f"Runs still use the block {deployed}, because {variable} is not set. {variable}= ends that.")
        name = deployed
    if not name:
        return None
    try:
        load_block(kind, name)
    except BadSettings as error:
        sys.exit(f"{error} Save it with klaviyo-pg save-blocks, or change {variable}.")
    return name
