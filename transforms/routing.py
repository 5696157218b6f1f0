"""Which metrics to read, and which event table holds each."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from klaviyo_pg.catalogue import events
from klaviyo_pg.errors import BadSettings


class KnownMetric(NamedTuple):
    """A metric: its id, and its name today."""

    id: str
    name: str | None


def destinations(
    metrics: Iterable[KnownMetric], stored: Mapping[str, str], overrides: Mapping[str, str]
) -> dict[str, str]:
    """The event table of each metric, by id.

    A metric's table is decided by its name when the metric is first seen, and stays whatever it is called later. Only
    one that had no table of its own gets one when the catalogue comes to know its name. `overrides`, by name or id, go
    before all that. Raises BadSettings where an override names no event table.
    """
    for name, table in overrides.items():
        if table not in _TABLES:
            raise BadSettings(f"DESTINATIONS: {table} (for {name}) is no event table; there are {', '.join(_TABLES)}.")
    return {metric.id: _destination(metric, stored.get(metric.id), overrides) for metric in metrics}


_TABLES = tuple(table.name for table in events.EVENT_TABLES)


def _destination(metric: KnownMetric, stored: str | None, overrides: Mapping[str, str]) -> str:
    overridden = overrides.get(metric.id) or overrides.get(metric.name or "")
    if overridden:
        return overridden
    if stored in _TABLES and stored != events.EVENTS.name:
        return stored
    return events.destination(metric.name)


def selected(metrics: Sequence[KnownMetric], wanted: Collection[str]) -> list[KnownMetric] | None:
    """The metrics that the user named, by name or id; a leading - leaves one out. None: all of them.

    Raises BadSettings where a name matches nothing.
    """
    for text in wanted:
        name = text.removeprefix("-")
        if not any(name in metric for metric in metrics):
            raise BadSettings(f"METRICS: the account has no metric with the name or id {name!r}.")
    if not wanted:
        return None
    included = {text for text in wanted if not text.startswith("-")}
    excluded = {text.removeprefix("-") for text in wanted if text.startswith("-")}
    return [metric for metric in metrics if (not included or included & set(metric)) and not excluded & set(metric)]
