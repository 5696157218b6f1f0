"""Arguments and environment that `klaviyo-pg psql` passes on: no secret in the arguments, and the search path."""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from klaviyo_pg.cli.psql import psql
from klaviyo_pg.errors import BadSettings


class Started(Exception):
    """Raised in place of executing a program, with its arguments and its environment."""


def start(program: str, arguments: list[str], environment: dict[str, str]) -> None:
    raise Started(arguments, environment)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.execvpe", start)
    monkeypatch.setenv("KLAVIYO_API_KEY", "pk_hunter2")


def started(monkeypatch: pytest.MonkeyPatch, url: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the parameters that psql gets as an argument, and its environment."""
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(Started) as caught:
        psql(Namespace(rest=["-c", "SELECT 1"]))
    arguments, environment = caught.value.args
    assert arguments[2:] == ["-c", "SELECT 1"]
    assert "hunter2" not in str(arguments)
    return conninfo_to_dict(arguments[1]), environment


def test_psql_gets_secrets_only_where_others_cannot_see_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password in a variable, and any other secret in a file without a name. The API key is not passed on."""
    url = "postgresql://ann:hunter21@db/shop?sslpassword=hunter22&sslkey=/k&options=-c%20a%3Db"
    parameters, environment = started(monkeypatch, url)
    assert parameters == {"user": "ann", "host": "db", "dbname": "shop", "sslkey": "/k", "service": "warehouse"}
    assert environment["PGPASSWORD"] == "hunter21"
    assert environment["PGOPTIONS"] == '-c search_path="klaviyo",public -c a=b'
    assert not {"KLAVIYO_API_KEY", "DATABASE_URL"} & environment.keys()
    file = Path(environment["PGSERVICEFILE"])
    assert file.read_text() == "[warehouse]\nsslpassword=hunter22\n"
    os.close(int(file.name))


def test_psql_gets_the_service_of_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service of the user cannot be combined with a secret that needs one."""
    parameters, environment = started(monkeypatch, "postgresql://?service=shop")
    assert parameters == {"service": "shop"}
    assert "PGSERVICEFILE" not in environment and "PGPASSWORD" not in environment
    monkeypatch.setenv("DATABASE_URL", "postgresql://?service=shop&sslpassword=hunter2")
    with pytest.raises(BadSettings, match=r"^Move sslpassword from DATABASE_URL into the service shop\.$"):
        psql(Namespace(rest=[]))
