"""The parts of collections that list archived rows only on request. Knows no resource."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from klaviyo_pg import rows
from klaviyo_pg.errors import Incomplete

ARCHIVED: Mapping[str, str] = MappingProxyType({"false": "", "true": "archived "})
"""The values of the filter, each of which needs a separate request, and what the names of their parts begin with."""


def closing(incomplete: Incomplete) -> rows.Page[Any]:
    """Return the last page of a collection of which a part was refused."""
    return rows.Page((), (), datetime.now(UTC), incomplete=incomplete)
