"""Parameters of flows that are neither names nor times."""

import pytest

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.parameters import parse_flag


@pytest.mark.parametrize(
    ("value", "flag"),
    [(True, True), (False, False), (None, False), ("true", True), ("False", False), (" false ", False)],
    ids=repr,
)
def test_a_flag_is_true_or_false(value: object, flag: bool) -> None:
    assert parse_flag("restart", value) is flag


@pytest.mark.parametrize("value", ["no", "", 1, []], ids=repr)
def test_anything_else_is_reported(value: object) -> None:
    """Text that is not empty would otherwise be true."""
    with pytest.raises(BadSettings, match=r"^restart .*: use true or false\.$"):
        parse_flag("restart", value)
