"""The environment of processes that a command starts and that need none of its secrets. Reads no settings."""

from collections.abc import Mapping

SECRETS = frozenset({"KLAVIYO_API_KEY", "DATABASE_URL", "PERSONAL_DATA_SALT", "PGPASSWORD"})
"""The variables that contain secrets. Settings are read from variables in upper and in lower case."""


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without this project's secrets."""
    return {name: value for name, value in environment.items() if name.upper() not in SECRETS}
