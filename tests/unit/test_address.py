"""DATABASE_URL: which parameters of a connection each form of it stands for, and how a mistake in it is reported."""

from collections.abc import Mapping
from traceback import format_exception

import pytest

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres import address

FORM = "DATABASE_URL is not a URL such as postgresql://user:password@host:5432/database."
ENCODE = (
    "DATABASE_URL contains a character that must be percent-encoded in the user name, the password or the name of the "
    "database: write @ as %40, / as %2F, ? as %3F and % as %25."
)
FULL = {"user": "ann", "password": "p@ss", "host": "db", "port": "5433", "dbname": "shop"}


@pytest.mark.parametrize(
    ("url", "parameters"),
    [
        pytest.param("postgresql://ann:p%40ss@db:5433/shop", FULL, id="postgresql"),
        pytest.param("postgres://ann:p%40ss@db:5433/shop", FULL, id="postgres"),
        pytest.param("postgresql+psycopg://ann:p%40ss@db:5433/shop", FULL, id="SQLAlchemy's driver"),
        pytest.param("postgresql+asyncpg://ann:p%40ss@db:5433/shop", FULL, id="Prefect's driver"),
        pytest.param("postgresql://ann@db:5433/shop?password=p%40ss", FULL, id="password in the query"),
        pytest.param("postgresql://db/shop?options=-c%20a=b", {"options": "-c a=b"}, id="options"),
        pytest.param("postgresql+psycopg://db/shop?options=-c+a%3Db", {"options": "-c a=b"}, id="options with a plus"),
        pytest.param("postgresql:///shop?host=/run/pg", {"host": "/run/pg"}, id="socket in the query"),
        pytest.param("postgresql://%2Frun%2Fpg/shop", {"host": "/run/pg"}, id="socket as the host"),
        pytest.param("postgresql://a:1,b:2/shop", {"host": "a,b", "port": "1,2"}, id="hosts as libpq writes them"),
        pytest.param("postgresql:///shop?host=a:1&host=b:2", {"host": "a,b", "port": "1,2"}, id="hosts as SQLAlchemy"),
        pytest.param("postgresql:///shop?host=a&host=b&port=1,2", {"host": "a,b", "port": "1,2"}, id="hosts and ports"),
        pytest.param("postgresql:///?service=shop", {"service": "shop"}, id="service"),
        pytest.param("postgresql://db/shop?ssl=true", {"sslmode": "require"}, id="ssl"),
        pytest.param(
            "postgresql://db/shop?sslmode=verify-full&sslrootcert=/a/b.pem&passfile=/c",
            {"sslmode": "verify-full", "sslrootcert": "/a/b.pem", "passfile": "/c"},
            id="certificate and password file",
        ),
        pytest.param("postgresql+psycopg://ann:p s@db/shop", {"password": "p s"}, id="a blank"),
        pytest.param("postgresql://[::1]:5433/shop", {"host": "::1", "port": "5433"}, id="IPv6"),
    ],
)
def test_every_form_of_a_url_is_understood(url: str, parameters: Mapping[str, str]) -> None:
    """A URL that is composed of the parameters stands for the same ones."""
    parsed = address.parse(url)
    assert parsed.items() >= parameters.items()
    assert address.parse(address.as_url(parsed)) == parsed


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        pytest.param("nonsense", FORM, id="no URL"),
        pytest.param("postgresql://ann:hunter2@[broken/shop", FORM, id="malformed host"),
        pytest.param("postgresql://ann:hunter2@host:port/shop", FORM, id="malformed port"),
        pytest.param("postgresql://ann:hunter2@host:99999/shop", FORM, id="impossible port"),
        pytest.param("postgresql://ann:abc@hunter2@host/shop", ENCODE, id="@ in the password"),
        pytest.param("postgresql://ann:1/hunter2@host/shop", ENCODE, id="/ in the password"),
        pytest.param("postgresql://ann:1?hunter2=1@host/shop", ENCODE, id="? in the password"),
        pytest.param("postgresql://ann:hunter2%@host/shop", ENCODE, id="% in the password"),
        pytest.param("postgresql://ann:hunter2%00@host/shop", ENCODE, id="a NUL character"),
        pytest.param(
            "postgresql://ann:hunter2@host/shop?sslmod=require",
            "DATABASE_URL contains the unknown option sslmod. Did you mean sslmode?",
            id="misspelled option",
        ),
        pytest.param(
            "postgresql://ann:hunter2@host/shop?pool_size=5",
            "DATABASE_URL contains the unknown option pool_size. Remove it.",
            id="unknown option",
        ),
        pytest.param("postgresql://ann:hunter2@host/shop?a b=require", FORM, id="malformed option"),
    ],
)
def test_a_mistake_in_a_url_is_explained_without_showing_the_password(url: str, sentence: str) -> None:
    with pytest.raises(BadSettings) as caught:
        address.parse(url)
    assert str(caught.value) == sentence
    assert "hunter2" not in "".join(format_exception(caught.value))


def test_the_secrets_of_a_url_are_those_that_libpq_hides() -> None:
    """A password that is the user's name, as in many trials, is not hidden: messages could not name the user."""
    parsed = address.parse("postgresql://ann:hunter2@host/shop?sslpassword=hunter3&sslkey=/a")
    assert sorted(address.secrets_of(parsed)) == ["hunter2", "hunter3"]
    assert address.secrets_of(address.parse("postgresql://ann:ann@host/shop")) == []
