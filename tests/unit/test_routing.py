"""Which metrics are read, and which table holds each."""

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
        pytest.param("Opened it", {"m": "opens"}, {}, "opens", id="renamed, stays"),
        pytest.param("Clicked Email", {"m": "opens"}, {}, "opens", id="renamed to another table's name, stays"),
        pytest.param("Clicked Email", {"m": "events"}, {}, "clicks", id="from events to a table of its own"),
        pytest.param("Placed Order", {"m": "events"}, {}, "events", id="still an event"),
        pytest.param("Opened Email", {"m": "no_table_any_more"}, {}, "opens", id="stored table is none"),
        pytest.param(None, {}, {}, "events", id="without a name"),
        pytest.param(None, {"m": "clicks"}, {}, "clicks", id="has lost its name"),
        pytest.param("Opened Push", {}, {"Opened Push": "opens"}, "opens", id="override by name"),
        pytest.param("Opened Push", {}, {"m": "opens"}, "opens", id="override by id"),
        pytest.param("Opened Push", {}, {"m": "clicks", "Opened Push": "opens"}, "clicks", id="id before name"),
        pytest.param("Opened Email", {"m": "opens"}, {"m": "events"}, "events", id="override before what is stored"),
        pytest.param("Opened Email", {}, {"Another": "clicks"}, "opens", id="override of another metric"),
    ],
)
def test_the_table_of_a_metric(
    name: str | None, stored: Mapping[str, str], overrides: Mapping[str, str], table: str
) -> None:
    """Decided once by name, unless the user says otherwise or the catalogue learns better."""
    assert destinations([KnownMetric("m", name)], stored, overrides) == {"m": table}


@pytest.mark.parametrize("table", [each.name for each in events.EVENT_TABLES])
def test_a_decision_is_final_but_for_events(table: str) -> None:
    """What was decided once is decided the same when it is stored, whatever the name."""
    again = destinations([KnownMetric("m", "Never Heard Of")], {"m": table}, {})
    assert again == {"m": table}


def test_an_override_has_to_name_an_event_table() -> None:
    """Anything else is told in one sentence that names the tables there are."""
    with pytest.raises(BadSettings, match=r"^DESTINATIONS: members \(for Opened Push\) .* sends, bounces, .*events\.$"):
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
def test_selection_of_metrics(wanted: list[str], ids: list[str] | None) -> None:
    """Names and ids choose, a leading - leaves out, and nothing chosen is everything."""
    found = selected(METRICS, wanted)
    assert (None if found is None else [metric.id for metric in found]) == ids


@pytest.mark.parametrize("wanted", ["Opened Emial", "-Opened Emial", "opened email", "-", ""])
def test_an_unknown_metric_is_told(wanted: str) -> None:
    """A name that matches nothing would else read nothing, or everything."""
    with pytest.raises(BadSettings, match=r"^METRICS: the account has no metric with the name or id '.*'\.$"):
        selected(METRICS, ["m1", wanted])
