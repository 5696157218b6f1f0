"""Artifacts: what a run shows in Prefect. Names come from the account: they are escaped, since Prefect shows markup."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)


class Artifacts:
    """Publishes tables, texts and progress as Prefect artifacts. If Prefect refuses them, the run does not suffer."""

    def __init__(self) -> None:
        self._progress: UUID | None = None

    def table(self, key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
        """Publish a table."""
        shown = [
            {name: escape(value, quote=False) if isinstance(value, str) else value for name, value in row.items()}
            for row in rows
        ]
        with suppress(Exception):
            create_table_artifact(key=key, table=shown, description=description)

    def markdown(self, key: str, text: str, description: str) -> None:
        """Publish a text in Markdown."""
        with suppress(Exception):
            create_markdown_artifact(key=key, markdown=text, description=description)

    def progress(self, share: float) -> None:
        """Publish how much of the run is done."""
        percent = round(100 * share, 1)
        with suppress(Exception):
            if self._progress is None:
                self._progress = create_progress_artifact(progress=percent, description="Backfill")  # type: ignore[assignment]
            else:
                update_progress_artifact(self._progress, progress=percent)
