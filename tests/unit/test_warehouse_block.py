"""The Prefect block of a warehouse: every DATABASE_URL comes back from it, and Prefect shows no secret of it."""

import pytest

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres.address import parse
from tasks import warehouse_block
from tasks.warehouse_block import connector, database_url


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql://ann:p%40ss%2B1@db:5433/shop?sslmode=require", id="host"),
        pytest.param("postgresql://ann:p%40ss@/shop?host=/run/pg", id="socket"),
        pytest.param("postgresql://%2Frun%2Fpg/shop", id="encoded socket"),
        pytest.param("postgresql+psycopg://ann@/shop?host=a:1&host=b:2", id="several hosts"),
        pytest.param("postgresql://?service=shop&options=-c%20a%3Db", id="service"),
        pytest.param("postgresql://db/shop?password=p%40ss", id="password in the query"),
    ],
)
def test_a_url_comes_back_from_its_block(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is not among what Prefect's API shows of the block."""
    block = connector(url)
    assert "p@ss" not in block.model_dump_json() and "p%40ss" not in block.model_dump_json()
    monkeypatch.setattr(warehouse_block, "load_block", lambda kind, name: block)
    assert parse(database_url("main")) == parse(url)


def test_a_secret_that_prefect_would_show_is_refused() -> None:
    """Prefect keeps only the password of such a block secret."""
    with pytest.raises(BadSettings) as caught:
        connector("postgresql://ann:hunter2@db/shop?sslpassword=hunter3")
    assert str(caught.value) == (
        "DATABASE_URL contains sslpassword, which Prefect would show to everyone who can see the block. Put it into a "
        "service file on the machines that run flows, and use service=NAME in DATABASE_URL instead."
    )
