"""The definitions of an account: custom metrics, and which metric it uses for what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sandbox.account.ids import token


@dataclass(slots=True)
class CustomMetric:
    """A custom metric. `groups` are the ids of its metrics, with the value of a property that limits each."""

    id: str
    name: str
    aggregation_method: str
    groups: dict[str, str | None]
    created: datetime
    updated: datetime


@dataclass(slots=True)
class MappedMetric:
    """The metric, or the custom metric, that the account uses for a purpose. The purpose is the id."""

    id: str
    metric: str | None
    custom_metric: str | None
    updated: datetime


@dataclass
class Definitions:
    """Custom metrics and mapped metrics, by id."""

    custom_metrics: dict[str, CustomMetric] = field(default_factory=dict)
    mapped_metrics: dict[str, MappedMetric] = field(default_factory=dict)


def define(account: str, seed: int, metrics: Mapping[str, str], until: datetime) -> Definitions:
    """Return the definitions of an account. `metrics` has the id of each metric by name."""
    sales = [metrics[name] for name in ("Placed Order", "Ordered Product") if name in metrics]
    visits = [metrics[name] for name in ("Active on Site",) if name in metrics]
    custom = [
        CustomMetric(
            token("custom-metric", account, seed, at),
            name,
            method,
            dict.fromkeys(ids, brand),
            until - timedelta(days=9),
            until - timedelta(days=at),
        )
        for at, (name, method, ids, brand) in enumerate(
            (("Sales", "value", sales, None), ('Visits "Out"', "count", visits, "Øl & Tents"))
        )
    ]
    mapped = {
        "revenue": (metrics.get("Placed Order"), None),
        "ordered_product": (metrics.get("Ordered Product"), None),
        "viewed_product": (metrics.get("Viewed Product"), None),
        "added_to_cart": (None, custom[0].id),
        "started_checkout": (None, None),
        "cancelled_sales": (None, None),
        "refunded_sales": (None, None),
    }
    mappings = [MappedMetric(name, *ids, until - timedelta(days=5)) for name, ids in mapped.items()]
    return Definitions({row.id: row for row in custom}, {row.id: row for row in mappings})
