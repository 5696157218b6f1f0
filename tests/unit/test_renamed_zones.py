"""The names of time zones that have been renamed."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from klaviyo_pg.renamed_zones import RENAMED

MOMENTS = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=30) * number for number in range(12)]


@pytest.mark.parametrize(("old", "current"), RENAMED.items())
def test_both_names_mean_the_same_time(old: str, current: str) -> None:
    before, now = ZoneInfo(old), ZoneInfo(current)
    assert [each.astimezone(before).isoformat() for each in MOMENTS] == [
        each.astimezone(now).isoformat() for each in MOMENTS
    ]


def test_each_current_name_is_one() -> None:
    assert not RENAMED.keys() & set(RENAMED.values())
