"""The Prefect block that contains a warehouse: how a database URL becomes one, and how it becomes a URL again."""

import re

from prefect_sqlalchemy import ConnectionComponents, SqlAlchemyConnector
from pydantic import SecretStr

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres.address import as_url, parse, secret_names
from tasks.blocks import Picked, load_block, name_of

_DRIVER = "postgresql+psycopg"


def database_url(chosen: str | Picked) -> str:
    """Return the URL of the database in a block. Raises BadSettings where its content cannot be used."""
    block = load_block(SqlAlchemyConnector, chosen)
    parts = block.connection_info
    if not isinstance(parts, ConnectionComponents):
        raise BadSettings(
            f"The block {name_of(chosen)} contains a URL, which Prefect shows to everybody: save it with "
            "ConnectionComponents."
        )
    url = parts.create_url()
    if not url.drivername.startswith("postgresql"):
        raise BadSettings(f"The block {name_of(chosen)} is for {url.drivername}: choose one for {_DRIVER}.")
    named = {"user": url.username, "password": url.password, "host": url.host, "port": url.port, "dbname": url.database}
    parameters = named | dict(url.query) | dict(block.connect_args or {})
    return as_url({option: str(value) for option, value in parameters.items() if value})


def connector(url: str) -> SqlAlchemyConnector:
    """Return a warehouse block with the parts of a URL. Prefect keeps a password secret only in a field for it.

    Raises BadSettings where it is not a URL, or where it contains another secret, which Prefect would show.
    """
    parameters = parse(url)
    username, password, database = (parameters.pop(name, None) for name in ("user", "password", "dbname"))
    has_place = re.fullmatch(r"[\w.-]+", parameters.get("host", "")) is not None  # not several, and not a socket
    host, port = (parameters.pop(name, None) if has_place else None for name in ("host", "port"))
    if shown := sorted(secret_names() & parameters.keys()):
        raise BadSettings(
            f"DATABASE_URL contains {shown[0]}, which Prefect would show to everyone who can see the block. Put it "
            "into a service file on the machines that run flows, and use service=NAME in DATABASE_URL instead."
        )
    return SqlAlchemyConnector(
        connection_info=ConnectionComponents(
            driver=_DRIVER,
            database=database,
            username=username,
            password=SecretStr(password) if password else None,
            host=host,
            port=int(port) if port else None,
            query=parameters,
        )
    )
