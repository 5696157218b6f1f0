"""Artifacts: what a run shows in Prefect. Names come from the account: they are escaped, since Prefect shows markup."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from klaviyo_pg.foreign import LONGEST_MESSAGE, printable
from tasks.naming import artifact_key


class Artifacts:
    """Publishes tables, texts and progress of an account as Prefect artifacts. The keys contain the account.

    If Prefect refuses one, the run does not suffer, but `note` is called with a sentence that says so.
    """

    def __init__(self, account: str, note: Callable[[str], None]) -> None:
        self._account, self._note = account, note
        self._progress: UUID | None = None

    def table(self, key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
        """Publish a table."""
        shown = [
            {
                name: escape(printable(value), quote=False) if isinstance(value, str) else value
                for name, value in row.items()
            }
            for row in rows
        ]
        with self._noted(f"the table {key}"):
            create_table_artifact(
                key=artifact_key(key, self._account),
                table=shown,
                description=escape(printable(description, LONGEST_MESSAGE), quote=False),
            )

    def markdown(self, key: str, text: str, description: str) -> None:
        """Publish a text in Markdown."""
        with self._noted(f"the text {key}"):
            create_markdown_artifact(key=artifact_key(key, self._account), markdown=text, description=description)

    def progress(self, share: float) -> None:
        """Publish how much of the run is done."""
        percent = round(100 * share, 1)
        with self._noted("the progress"):
            if self._progress is None:
                self._progress = create_progress_artifact(
                    progress=percent, description=f"Backfill of {printable(self._account)}"
                )  # type: ignore[assignment]
            else:
                update_progress_artifact(self._progress, progress=percent)

    @contextmanager
    def _noted(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._note(f"Prefect did not accept {what} ({type(error).__name__}). The warehouse has the same figures.")
