"""Values in groups."""

from klaviyo_pg.grouping import grouped


def test_groups_keep_the_order_of_their_values() -> None:
    groups = grouped([("b", 2), ("a", 3), ("b", 1)])
    assert list(groups.items()) == [("b", [2, 1]), ("a", [3])]
