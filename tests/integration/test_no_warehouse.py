"""Commands in a database without a warehouse, as with a wrong WAREHOUSE_SCHEMA: they create nothing."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from klaviyo_pg.cli.erase import erase
from klaviyo_pg.cli.remove import remove
from klaviyo_pg.cli.rename import rename
from klaviyo_pg.cli.reread import reread
from klaviyo_pg.cli.upgrade import upgrade
from klaviyo_pg.cli.views import views
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres import accounts
from tests.runs import url_of

_RELATIONS = (
    "SELECT nspname, relname FROM pg_namespace LEFT JOIN pg_class ON relnamespace = pg_namespace.oid ORDER BY 1, 2"
)
COMMANDS: dict[Callable[[Namespace], int], dict[str, Any]] = {
    erase: {"integration": None, "email": [], "id": ["p1"], "file": None, "yes": True},
    remove: {"name": "shop", "yes": True},
    rename: {"old": "shop", "new": "store"},
    reread: {"integration": None, "tables": ["members"]},
    upgrade: {"plan": False},
    views: {"integration": None, "schema": "klaviyo_fivetran", "drop": False, "all": False},
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
@pytest.mark.parametrize("schema", ["klaviyo", "public"])
def test_a_command_creates_no_warehouse(
    empty_database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    schema: str,
    command: Callable[[Namespace], int],
) -> None:
    """Neither in a schema that is missing nor in one that has no tables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", url_of(empty_database))
    monkeypatch.setenv("WAREHOUSE_SCHEMA", schema)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        before = connection.execute(_RELATIONS).fetchall()
        with pytest.raises(BadSettings, match=rf"^There is no warehouse in the schema {schema} yet\."):
            command(Namespace(**COMMANDS[command]))
        assert connection.execute(_RELATIONS).fetchall() == before


def test_remove_changes_nothing_if_the_warehouse_lacks_the_account(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema may be that of another project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", url_of(database))
    with psycopg.connect(database, autocommit=True) as connection:
        accounts.register(connection, "klaviyo", "store", None)
        connection.execute("DROP TABLE klaviyo.forms CASCADE")
        before = connection.execute(_RELATIONS).fetchall()
        with pytest.raises(BadSettings, match=r"^There is no account shop in the schema klaviyo\."):
            remove(Namespace(name="shop", yes=True))
        assert connection.execute(_RELATIONS).fetchall() == before
