"""The selection of metrics, and the event table of each."""

from collections.abc import Mapping

import pytest

from klaviyo_pg.catalogue import events
from klaviyo_pg.errors import BadSettings
from transforms.routing import KnownMetric, destinations, selected

METRICS = [KnownMetric("m1", "Opened Email"), KnownMetric("m2", "Placed Order"), KnownMetric("m3", None)]


@pytest.mark.parametrize(
    ("name", "stored", "overrides", "table"),
    [
        pytest.param("Opened Email", {}, {}, "opens", id="by name when first seen"),
        pytest.param("Opened it", {"m": "opens"}, {}, "opens", id="renamed, same table"),
        pytest.param("Clicked Email", {"m": "opens"}, {}, "opens", id="renamed to a name of another table, same table"),
        pytest.param("Clicked Email", {"m": "events"}, {}, "clicks", id="moves from events to a dedicated table"),
        pytest.param("Placed Order", {"m": "events"}, {}, "events", id="still in events"),
        pytest.param("Opened Email", {"m": "removed_table"}, {}, "opens", id="stored table no longer exists"),
        pytest.param(None, {}, {}, "events", id="without a name"),
        pytest.param(None, {"m": "clicks"}, {}, "clicks", id="without a name any more"),
        pytest.param("Opened Push", {}, {"Opened Push": "opens"}, "opens", id="override by name"),
        pytest.param("Opened Push", {}, {"m": "opens"}, "opens", id="override by id"),
        pytest.param(
            "Opened Push",
            {},
            {"m": "clicks", "Opened Push": "opens"},
            "clicks",
            id="override by id wins over one by name",
        ),
        pytest.param(
            "Opened Email", {"m": "opens"}, {"m": "events"}, "events", id="override wins over the stored table"
        ),
        pytest.param("Opened Email", {}, {"Another": "clicks"}, "opens", id="override of another metric"),
    ],
)
def test_a_metric_is_assigned_to_a_table(
    name: str | None, stored: Mapping[str, str], overrides: Mapping[str, str], table: str
) -> None:
    """The first name decides, unless the user overrides it or the catalogue has a new table for the name."""
    assert destinations([KnownMetric("m", name)], stored, overrides) == {"m": table}


@pytest.mark.parametrize("table", [each.name for each in events.EVENT_TABLES])
def test_an_assigned_table_stays_whatever_the_name(table: str) -> None:
    assigned = destinations([KnownMetric("m", "Unknown")], {"m": table}, {})
    assert assigned == {"m": table}


def test_an_override_must_name_an_event_table() -> None:
    """The error lists the event tables."""
    with pytest.raises(
        BadSettings,
        match=r"^DESTINATIONS: 'members', the table for 'Opened Push', is not .* sends, bounces, .*events\.$",
    ):
        destinations([], {}, {"Opened Push": "members"})


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        pytest.param([], None, id="all"),
        pytest.param(["Opened Email"], ["m1"], id="by name"),
        pytest.param(["m2", "Opened Email"], ["m1", "m2"], id="by id and name"),
        pytest.param(["-Placed Order"], ["m1", "m3"], id="all but one"),
        pytest.param(["m1", "m2", "-m2"], ["m1"], id="one of two"),
        pytest.param(["m1", "-m1"], [], id="none"),
    ],
)
def test_metrics_are_selected_by_name_or_id(wanted: list[str], ids: list[str] | None) -> None:
    """A leading - excludes a metric. No selection means all metrics."""
    metrics = selected(METRICS, wanted)
    assert (None if metrics is None else [metric.id for metric in metrics]) == ids


@pytest.mark.parametrize("wanted", ["Opened Emial", "-Opened Emial", "opened email", "-", ""])
def test_an_unknown_metric_raises_an_error(wanted: str) -> None:
    """Otherwise a misspelled name would select nothing, or exclude nothing."""
    with pytest.raises(BadSettings, match=r"^METRICS: the account has no metric with the name or id '.*'\."):
        selected(METRICS, ["m1", wanted])
