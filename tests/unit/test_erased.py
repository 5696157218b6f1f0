"""People who were erased are left out of what is stored."""

import hashlib

import polars as pl
import pytest

from klaviyo_pg.catalogue import Load, loads
from transforms.erased import without

GONE = hashlib.md5(b"p1").hexdigest()


def frame(load: Load, **columns: list[str | None]) -> pl.DataFrame:
    given = pl.DataFrame(columns)
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in load.schema.items() if name not in columns]
    return given.with_columns(missing).select(*load.schema)


def test_events_stay_and_tell_of_nobody() -> None:
    """Those of others, and of nobody, stay as they are."""
    load = loads.EVENTS["opens"]
    found = frame(load, id=["a", "b", "c"], member_key=[GONE, "k", None], email=["a@b.c", "d@e.f", None])
    found = found.with_columns(properties=pl.lit("{}"))
    left = without(found, load, [GONE])
    assert left.select("id", "member_key", "email", "properties").rows() == [
        ("a", None, None, None),
        ("b", "k", "d@e.f", "{}"),
        ("c", None, None, "{}"),
    ]
    assert left.schema == found.schema


@pytest.mark.parametrize(
    ("load", "column", "erased", "other"),
    [
        pytest.param(loads.MEMBERS, "member_key", GONE, "k", id="members"),
        pytest.param(loads.MEMBER_ATTRIBUTES, "member_key", GONE, "k", id="attributes"),
        pytest.param(loads.STG_MEMBER_LISTS, "member_id", "p1", "p2", id="lists"),
        pytest.param(loads.SUBSCRIPTION_CHANGES, "member_id", "p1", "p2", id="changes"),
        pytest.param(loads.SWEPT_MEMBERS, "member_id", "p1", "p2", id="sweeps"),
    ],
)
def test_rows_of_a_person_are_left_out(load: Load, column: str, erased: str, other: str) -> None:
    """Whether they name the person by id or by key."""
    found = frame(load, **{column: [erased, other]})
    assert without(found, load, [GONE]).get_column(column).to_list() == [other]
    assert without(found, load, []) is found


def test_what_names_nobody_stays() -> None:
    """Lists, campaigns, exclusions."""
    found = frame(loads.LISTS, id=["L1"])
    assert without(found, loads.LISTS, [GONE]) is found
