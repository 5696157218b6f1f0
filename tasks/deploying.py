"""A build step for prefect.yaml: the environment's word on a deployment, with a default where it has none.

Prefect's own `{{ $NAME }}` puts an empty text where a variable is not set.
"""

import os
from pathlib import Path


def from_environment(**defaults: str) -> dict[str, str]:
    """Each variable's value, or its default. PROJECT_DIR is the folder that is deployed from, where it is not set."""
    defaults.setdefault("PROJECT_DIR", str(Path.cwd()))
    return {name: os.environ.get(name) or default for name, default in defaults.items()}
