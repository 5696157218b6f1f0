"""The environment: without secrets for other processes, and changed for this one. Reads no settings."""

import os
from collections.abc import Mapping

from klaviyo_pg.names import PREFIX

SECRETS = frozenset({"KLAVIYO_API_KEY", "DATABASE_URL", "PERSONAL_DATA_SALT", "PGPASSWORD"})
"""The variables that contain secrets. Settings are read from variables in upper and in lower case, with and
without a prefix."""


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without this project's secrets."""
    return {name: value for name, value in environment.items() if name.upper().removeprefix(PREFIX) not in SECRETS}


def override(values: Mapping[str, str]) -> None:
    """Set variables of this process so that neither .env nor names with the prefix take precedence."""
    for name, value in values.items():
        os.environ[name] = os.environ[PREFIX + name] = value
