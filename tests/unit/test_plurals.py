"""Numbers with their nouns, and lists of names."""

import pytest

from klaviyo_pg.plurals import counted, named


@pytest.mark.parametrize(("number", "expected"), [(0, "0 events"), (1, "1 event"), (2_400, "2,400 events")])
def test_only_one_is_singular(number: int, expected: str) -> None:
    assert counted(number, "event") == expected


def test_an_irregular_plural() -> None:
    assert [counted(number, "person", "people") for number in (1, 2)] == ["1 person", "2 people"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [("a", "a"), ("ab", "a and b"), ("abcde", "a, b, c, d and e"), ("abcdef", "a, b, c, d, e and 1 other")],
)
def test_a_list_of_names(names: str, expected: str) -> None:
    assert named([*names]) == expected
