"""The environment: without secrets for other processes, and changed for this one. Reads no settings."""

import os
from collections.abc import Mapping
from urllib.parse import unquote

from klaviyo_pg.names import PREFIX

SECRETS = frozenset({"KLAVIYO_API_KEY", "DATABASE_URL", "PERSONAL_DATA_SALT", "PGPASSWORD"})
"""The variables that contain secrets. Settings are read from variables in upper and in lower case, with and
without a prefix."""
PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})
"""The variables with the URL of a proxy, which may contain a password."""


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without this project's secrets, and without proxies that need a password."""
    return {name: value for name, value in environment.items() if not _is_secret(name.upper(), value)}


def _is_secret(name: str, value: str) -> bool:
    return name.removeprefix(PREFIX) in SECRETS or (name in PROXIES and "@" in value)


def proxy_passwords() -> list[str]:
    """Return the passwords of the proxies in the environment."""
    users = [_user(value) for name, value in os.environ.items() if name.upper() in PROXIES]
    found = {form for user in users for form in (user.partition(":")[2], unquote(user.partition(":")[2]))}
    return sorted(found - {""})


def _user(url: str) -> str:
    """Return the name and the password in the URL of a proxy, which may lack the scheme."""
    return url.rpartition("@")[0].rpartition("://")[2]


def override(values: Mapping[str, str]) -> None:
    """Set variables of this process so that neither .env nor names with the prefix take precedence."""
    for name, value in values.items():
        os.environ[name] = os.environ[PREFIX + name] = value
