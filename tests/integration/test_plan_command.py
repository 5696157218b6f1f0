"""The stored events that `backfill --plan` leaves out, and the durations that it prints."""

from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from klaviyo_pg.cli import preview
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import Window
from pipeline.commands.preview import Stored
from tests.runs import url_of

WINDOW = Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))


def test_a_new_warehouse_has_nothing(empty_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert preview._stored(Settings(database_url=SecretStr(url_of(empty_database))), WINDOW) == Stored()
    assert capsys.readouterr().err == ""


def test_a_warehouse_that_cannot_be_read_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(database_url=SecretStr("postgresql://someone:hidden@127.0.0.1:1/x"))
    assert preview._stored(settings, WINDOW) == Stored()
    printed = capsys.readouterr().err
    assert printed.startswith("Warning: The warehouse cannot be read, so nothing counts as loaded. Cannot connect to")
    assert "hidden" not in printed


def test_what_cannot_be_counted_is_a_sentence() -> None:
    day = BackfillChunk("OPEN", WINDOW.start, WINDOW.end, None)
    assert preview._uncounted([]) is None
    assert preview._uncounted([day]) == "1 chunk of 1 metric cannot be counted. There can be more events than shown."
    several = preview._uncounted([day, day, day._replace(metric_id="CLICK")])
    assert several == "3 chunks of 2 metrics cannot be counted. There can be more events than shown."


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "less than 1 s"),
        (99, "99 s"),
        (100, "2 min"),
        (603, "10 min"),
        (3_600, "1 h"),
        (5_400, "1 h 30 min"),
        (86_340, "23 h 59 min"),
        (200_000, "2 d 8 h"),
    ],
)
def test_a_duration_is_as_precise_as_an_estimate(seconds: float, shown: str) -> None:
    assert preview._about(seconds) == shown
