"""The rows that a run has counted, as people see them."""

import pytest

from pipeline.figures import figures, rows_of
from pipeline.outcome import RowCounts

NUMBERS = {"rows_read": 1_010, "inserted": 1_000, "updated": 3, "unchanged": 5, "rejected": 2, "replaced_values": 0}


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        pytest.param({}, "0 rows read.", id="nothing"),
        pytest.param({"opens": {"rows_read": 2, "unchanged": 2}}, "2 rows read: 2 unchanged.", id="unchanged"),
        pytest.param(
            {"opens": NUMBERS, "clicks": NUMBERS},
            "2,020 rows read: 2,000 new, 6 changed, 10 unchanged, 4 rejected.",
            id="two tables",
        ),
    ],
)
def test_a_sentence_adds_up_the_tables(counts: RowCounts, sentence: str) -> None:
    assert figures(counts) == sentence


def test_tables_have_the_order_of_the_catalogue() -> None:
    rows = list(rows_of({"opens": NUMBERS, "metrics": NUMBERS, "runs": NUMBERS}))
    assert [row["table"] for row in rows] == ["metrics", "opens"]
    assert rows[0]["rows read"] == 1_010
