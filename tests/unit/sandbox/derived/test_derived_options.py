"""The options of a derived account, in Python and on the command line."""

from datetime import UTC, datetime, timedelta

import pytest

from sandbox.__main__ import parse
from sandbox.derived import DerivedOptions, derive


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["--metrics", "7"], "--metrics is an option of large accounts. Add --large.", id="without --large"
        ),
        pytest.param(["--large", "--members", "3"], "A large account has at least 10 members", id="too few members"),
        pytest.param(["--large", "--daily-share", "2"], "The daily share must be more than 0", id="share"),
        pytest.param(["--large", "--daily-share", "0.1", "--added-days", "10"], "at most 9 days", id="days"),
        pytest.param(["--large", "--daily-share", str(1 / 1_234)], "1 / 1234 cannot be used", id="stride"),
        pytest.param(["--events", "100000001"], "Add --large.", id="events in memory"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(arguments)
    assert message in str(refused.value)


def test_sizes_are_those_of_the_command_line() -> None:
    arguments = ["--large", "--events=7", "--members=11", "--until=2026-11-01", "--lists=4", "--order-size=900"]
    _, options = parse(arguments)
    until = datetime(2026, 11, 1, tzinfo=UTC)
    assert options == DerivedOptions(events=7, members=11, lists=4, order_size=900, until=until)


def test_an_account_grows_with_the_clock() -> None:
    """Its history stays the same, and one day is added for each day that has passed."""
    options = DerivedOptions()
    grown = options.grown_until(options.until + timedelta(days=3, hours=23))
    assert (grown.added_days, grown.until) == (3, options.until)
    assert options.grown_until(options.until - timedelta(days=1)).added_days == 0
    assert options.grown_until(datetime(2100, 1, 1, tzinfo=UTC)).added_days == options.cycle - 1


@pytest.mark.parametrize("properties", [0, 1, 2, 3, 25, 60])
def test_people_have_as_many_properties_as_asked_for(properties: int) -> None:
    account = derive(DerivedOptions(members=20, events=10, days=3, metrics=5, lists=3, properties=properties))
    assert all(len(account.people.profile(index).properties) == properties for index in range(20))


@pytest.mark.parametrize("size", [500, 2_000, 10_000])
def test_orders_have_the_size_asked_for(size: int) -> None:
    account = derive(DerivedOptions(members=20, events=9_000, days=3, metrics=40, lists=3, order_size=size))
    number = next(row.number for row in account.metrics.values() if row.name == "Placed Order")
    rows = [account.timeline.row(ref) for ref in account.timeline.every()]
    sizes = [len(properties) for _, metric, _, properties in rows if metric == number]
    assert len(sizes) > 100
    assert all(size - 200 < each < size + 400 for each in sizes)


def test_the_seed_decides() -> None:
    first, again, other = (
        derive(DerivedOptions(members=50, events=500, days=3, metrics=30, lists=3, seed=seed)) for seed in (1, 1, 2)
    )
    rows = [[account.timeline.row(ref) for ref in account.timeline.every()] for account in (first, again, other)]
    assert rows[0] == rows[1] != rows[2]
    assert [first.people.id(index) for index in range(50)] == [again.people.id(index) for index in range(50)]
