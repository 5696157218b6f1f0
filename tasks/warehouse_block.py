"""The Prefect block that contains a warehouse: how a database URL becomes one, and how it becomes a URL again."""

from prefect_sqlalchemy import ConnectionComponents, SqlAlchemyConnector
from pydantic import SecretStr

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres.connect import parse_url
from tasks.blocks import load_block

_DRIVER = "postgresql+psycopg"


def database_url(name: str) -> str:
    """Return the URL of the database in a block. Raises BadSettings where its content cannot be used."""
    block = load_block(SqlAlchemyConnector, name)
    parts = block.connection_info
    if not isinstance(parts, ConnectionComponents):
        raise BadSettings(
            f"The block {name} contains a URL, which Prefect shows to everybody: save it with ConnectionComponents."
        )
    url = parts.create_url()
    if not url.drivername.startswith("postgresql"):
        raise BadSettings(f"The block {name} is for {url.drivername}: choose one for {_DRIVER}.")
    more = {option: str(value) for option, value in (block.connect_args or {}).items()}
    rendered: str = url.set(drivername="postgresql").update_query_dict(more).render_as_string(hide_password=False)
    return rendered


def connector(url: str) -> SqlAlchemyConnector:
    """Return a warehouse block with the parts of a URL: only so does Prefect keep the password secret.

    Raises BadSettings where it is not a URL.
    """
    parts = parse_url(url)
    return SqlAlchemyConnector(
        connection_info=ConnectionComponents(
            driver=_DRIVER,
            database=parts.database,
            username=parts.username,
            password=SecretStr(parts.password) if parts.password else None,
            host=parts.host,
            port=parts.port,
            query={name: value if isinstance(value, str) else value[-1] for name, value in parts.query.items()},
        )
    )
