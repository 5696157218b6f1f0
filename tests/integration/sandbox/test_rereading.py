"""The command `reread`: the next daily run sends the requests of a first one, and writes no unchanged row."""

import re
from argparse import Namespace
from collections.abc import Iterator

import pytest

from klaviyo_pg.cli.reread import reread
from klaviyo_pg.errors import Busy
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT
from tests.removing import id_of
from tests.runs import Warehouse, positions

TABLES = ("members", "stg_member_lists", "segment_members", "templates", "forms", "images", "campaigns")

ENDPOINTS = (
    *("profiles", "lists/{id}/profiles", "segments/{id}/profiles", "templates", "forms", "forms/{id}/form-versions"),
    "images",
)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account whose history ends at midnight."""
    with running(members=500, events=1_000, days=10, until=MIDNIGHT) as box:
        yield box


def requests_of_tables(box: Sandbox) -> int:
    """Return how many requests have been sent to the endpoints that daily runs do not always read in full."""
    sent = box.state()["requests"]
    return sum(sent[f"GET /api/{each}"] for each in ENDPOINTS)


def test_unchanged_rows_are_read_and_not_written(
    warehouse: Warehouse, box: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It needs no key, and is refused while a run of the account is in progress."""
    monkeypatch.delenv("KLAVIYO_API_KEY", raising=False)
    for name in ("database_url", "data_dir", "klaviyo_base_url", "klaviyo_integration"):
        monkeypatch.setenv(name.upper(), str(warehouse.settings[name]))
    segments = tuple(box.state()["segments"])
    monkeypatch.setenv("SEGMENTS", ",".join(segments))
    only = warehouse.variant(tables=TABLES, segments=segments, profile_sweep_days=0, blind_lookback_days=1)
    first = only.daily()
    assert only.daily().traffic.requests < first.traffic.requests
    before = positions(only)
    arguments = Namespace(tables=TABLES, integration=None)
    with only.open() as session:
        session.claims.take(id_of(only, "default"), "daily")
        with pytest.raises(Busy):
            reread(arguments)
    assert reread(arguments) == 0
    announced = sum(map(int, re.findall(r"about (\d+)", capsys.readouterr().out)))
    sent = requests_of_tables(box)
    again = only.daily()
    assert (again.exit_code, again.traffic.requests) == (0, first.traffic.requests)
    sent = requests_of_tables(box) - sent
    assert sent / 2 < announced <= sent, "those of segments are unknown"
    assert positions(only) == before
