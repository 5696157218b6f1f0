"""People who were erased are removed before frames are stored."""

import hashlib

import polars as pl
import pytest

from klaviyo_pg.catalogue import Load, loads
from transforms.erased import without

ERASED = hashlib.md5(b"p1").hexdigest()


def frame(load: Load, **columns: list[str | None]) -> pl.DataFrame:
    values = pl.DataFrame(columns)
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in load.schema.items() if name not in columns]
    return values.with_columns(missing).select(*load.schema)


def test_events_stay_without_the_erased_person() -> None:
    """Events of other people and events without a person are unchanged."""
    load = loads.EVENTS["opens"]
    stored = frame(load, id=["a", "b", "c"], member_key=[ERASED, "k", None], email=["a@b.c", "d@e.f", None])
    stored = stored.with_columns(properties=pl.lit("{}"))
    left = without(stored, load, [ERASED])
    assert left.select("id", "member_key", "email", "properties").rows() == [
        ("a", None, None, None),
        ("b", "k", "d@e.f", "{}"),
        ("c", None, None, "{}"),
    ]
    assert left.schema == stored.schema


@pytest.mark.parametrize(
    ("load", "column", "erased", "other"),
    [
        pytest.param(loads.MEMBERS, "member_key", ERASED, "k", id="members"),
        pytest.param(loads.MEMBER_ATTRIBUTES, "member_key", ERASED, "k", id="attributes"),
        pytest.param(loads.STG_MEMBER_LISTS, "member_id", "p1", "p2", id="lists"),
        pytest.param(loads.SUBSCRIPTION_CHANGES, "member_id", "p1", "p2", id="changes"),
        pytest.param(loads.SWEPT_MEMBERS, "member_id", "p1", "p2", id="sweeps"),
    ],
)
def test_rows_of_an_erased_person_are_removed(load: Load, column: str, erased: str, other: str) -> None:
    """The row can refer to the person by id or by key."""
    rows = frame(load, **{column: [erased, other]})
    assert without(rows, load, [ERASED]).get_column(column).to_list() == [other]
    assert without(rows, load, []) is rows


def test_rows_without_a_person_stay() -> None:
    lists = frame(loads.LISTS, id=["L1"])
    assert without(lists, loads.LISTS, [ERASED]) is lists
