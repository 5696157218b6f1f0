"""The build steps of prefect.yaml: what the environment says about deployments. They run when somebody deploys.

Prefect's own `{{ $NAME }}` puts an empty text where a variable is not set.
"""

import os
import sys
from pathlib import Path

from prefect.blocks.core import Block
from prefect_sqlalchemy import SqlAlchemyConnector

from klaviyo_pg.errors import BadSettings
from tasks.blocks import KlaviyoCredentials, load_block


def from_environment(**defaults: str) -> dict[str, str]:
    """Each variable's value, or its default. PROJECT_DIR is the folder that is deployed from, where it is not set."""
    defaults.setdefault("PROJECT_DIR", str(Path.cwd()))
    return {name: os.environ.get(name) or default for name, default in defaults.items()}


def blocks_from_environment(klaviyo: str, warehouse: str) -> dict[str, str | None]:
    """Return the blocks that runs use unless they name others: those that these two variables name.

    Raises SystemExit if the server has no such block. Any other error would reach the user as a traceback of Prefect's.
    """
    return {"klaviyo": _block(klaviyo, KlaviyoCredentials), "warehouse": _block(warehouse, SqlAlchemyConnector)}


def _block(variable: str, kind: type[Block]) -> str | None:
    name = os.environ.get(variable) or None
    if name is not None:
        try:
            load_block(kind, name)
        except BadSettings as error:
            sys.exit(f"{error} Save it with klaviyo-pg save-blocks, or change {variable}.")
    return name
