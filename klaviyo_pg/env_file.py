"""The file with settings: where it is, what is wrong in it, and which of its variables are those of libraries.

Knows the names of settings only from its callers.
"""

import os
from collections.abc import Collection
from pathlib import Path

from dotenv import dotenv_values

from klaviyo_pg import names
from klaviyo_pg.errors import BadSettings

_DEFAULT = ".env"


def path() -> str:
    """Return the path of the file: KLAVIYO_PG_ENV_FILE, or .env in the current folder."""
    return os.environ.get(names.ENV_FILE) or _DEFAULT


def check(settings: Collection[str]) -> None:
    """Raise BadSettings if the file sets something that is no setting, or a setting twice with different values.

    A file that is missing is an error only if KLAVIYO_PG_ENV_FILE names it.
    """
    file = path()
    if not Path(file).is_file():
        if file != _DEFAULT:
            raise BadSettings(f"There is no file {file}. Correct {names.ENV_FILE}.")
        return
    values = variables()
    if sentence := next(names.unknown(values, settings), None):
        raise BadSettings(f"{file}: {sentence}")
    for name in names.set_twice(values, settings):
        raise BadSettings(f"{file}: {name} and {names.PREFIX}{name} have different values. Remove one of them.")


def variables() -> dict[str, str | None]:
    """Return the variables in the file, with names in upper case; none if there is no file."""
    file = path()
    return {name.upper(): value for name, value in dotenv_values(file).items()} if Path(file).is_file() else {}


def first(name: str) -> tuple[str, str | None] | None:
    """Return the variable that a setting is read from, with its value: the first of those that may set it."""
    environment, in_file = {each.upper(): value for each, value in os.environ.items()}, variables()
    for variable in (names.PREFIX + name, name):
        for source in (environment, in_file):
            if variable in source:
                return variable, source[variable]
    return None


def of_prefect() -> list[str]:
    """Return the names of Prefect's settings in the file, if Prefect does not read them because it is not .env."""
    file = Path(path())
    if file.resolve() == Path(_DEFAULT).resolve():
        return []
    return [name for name in variables() if name.startswith("PREFECT_") and name not in os.environ]


def export_to_libraries() -> None:
    """Let libraries find their variables in the environment, such as HTTPS_PROXY, if only the file has them."""
    for name, value in variables().items():
        if name in names.EXPORTED and value is not None and name.lower() not in os.environ:
            os.environ.setdefault(name, value)
