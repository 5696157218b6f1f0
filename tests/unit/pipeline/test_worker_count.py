"""The number of chunks that a session reads at once."""

import pytest

from klaviyo_pg.settings import Settings
from pipeline.session import Session


@pytest.mark.parametrize(
    ("concurrency", "answer_seconds", "limit", "expected"),
    [
        pytest.param(3, 9.0, 3500, 3, id="as configured"),
        pytest.param(None, 9.0, None, 4, id="no published limit"),
        pytest.param(None, 0.01, 3500, 4, id="fast answers"),
        pytest.param(None, 0.06, 3500, 7, id="as many as keep the limit busy"),
        pytest.param(None, 9.0, 3500, 16, id="slow answers"),
    ],
)
def test_the_number_of_workers_follows_from_the_speed_of_the_api(
    concurrency: int | None, answer_seconds: float, limit: int | None, expected: int
) -> None:
    settings = Settings(klaviyo_api_key="pk_none", concurrency=concurrency)
    assert Session(settings).worker_count(answer_seconds, limit) == expected
