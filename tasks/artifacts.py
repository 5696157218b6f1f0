"""What runs leave in Prefect to look at. Names of an account are data: they are escaped, since Prefect shows markup."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from klaviyo_pg import coverage
from klaviyo_pg.postgres import coverage as books
from klaviyo_pg.postgres.connect import transaction
from tasks import edges
from tasks.run import Run


def table(key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
    """A table artifact. Where Prefect does not take it the run is none the worse."""
    shown = [
        {name: escape(value, quote=False) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    ]
    with suppress(Exception):
        create_table_artifact(key=key, table=shown, description=description)


def covered(run: Run) -> None:
    """Each metric by day: complete, differs, not loaded, no events; as a table in Markdown."""
    account = run.settings.klaviyo_integration
    with transaction(edges.engine(run.settings)) as connection:
        found = books.read(connection, run.schema, run.integration_id, account, run.as_of.date())
    with suppress(Exception):
        create_markdown_artifact(
            key="coverage", markdown=coverage.markdown(found), description=f"Coverage of {account}"
        )
