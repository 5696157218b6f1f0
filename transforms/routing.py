"""The selection of metrics to read, and the event table of each metric."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from klaviyo_pg.catalogue import events
from klaviyo_pg.errors import BadSettings

_TABLES = tuple(table.name for table in events.EVENT_TABLES)


class KnownMetric(NamedTuple):
    """The id of a metric and its current name."""

    id: str
    name: str | None


def destinations(
    metrics: Iterable[KnownMetric], stored: Mapping[str, str], overrides: Mapping[str, str]
) -> dict[str, str]:
    """Return the event table of each metric, by id.

    The name that a metric has when it is first seen decides its table, and later names do not change it. The exception
    is a metric in the general table `events`, which moves once the catalogue has a table for its name. `overrides`, by
    name or id, take precedence. Raises BadSettings if an override names a table that is not an event table.
    """
    check_destinations(overrides)
    return {metric.id: _destination(metric, stored.get(metric.id), overrides) for metric in metrics}


def check_destinations(overrides: Mapping[str, str]) -> None:
    """Raise BadSettings if an override names a table that is not an event table."""
    for name, table in overrides.items():
        if table not in _TABLES:
            raise BadSettings(
                f"DESTINATIONS: {table!r}, the table for {name!r}, is not an event table. Use one of "
                f"{', '.join(_TABLES)}."
            )


def _destination(metric: KnownMetric, stored: str | None, overrides: Mapping[str, str]) -> str:
    overridden = overrides.get(metric.id) or overrides.get(metric.name or "")
    if overridden:
        return overridden
    if stored in _TABLES and stored != events.EVENTS.name:
        return stored
    return events.destination(metric.name)


def selected(metrics: Sequence[KnownMetric], wanted: Collection[str]) -> list[KnownMetric] | None:
    """Return the metrics that the user selected by name or id, where a leading - excludes one. None means all.

    Raises BadSettings if a name matches no metric.
    """
    for text in wanted:
        check_metric("METRICS", text.removeprefix("-"), metrics)
    if not wanted:
        return None
    included = {text for text in wanted if not text.startswith("-")}
    excluded = {text.removeprefix("-") for text in wanted if text.startswith("-")}
    return [metric for metric in metrics if (not included or included & set(metric)) and not excluded & set(metric)]


def check_metric(setting: str, name: str | None, metrics: Sequence[KnownMetric]) -> None:
    """Raise BadSettings if a setting names a metric, by name or id, that is not among these."""
    if name is not None and not any(name in metric for metric in metrics):
        raise BadSettings(
            f"{setting}: the account has no metric with the name or id {name!r}. {_advice(name, metrics)}"
        )


def _advice(name: str, metrics: Iterable[KnownMetric]) -> str:
    names = {metric.name.lower(): metric.name for metric in metrics if metric.name}
    if nearest := get_close_matches(name.lower(), names, 1):
        return f"Did you mean {names[nearest[0]]!r}?"
    return "Use names as Klaviyo shows them, including upper and lower case."
