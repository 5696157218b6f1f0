"""The tables that keep the rows of marts (STORED_MARTS), and the tables that these rows depend on. Knows no SQL."""

from dataclasses import dataclass, replace

from klaviyo_pg.catalogue import account, attribution, dimensions, events, marts, membership, messages
from klaviyo_pg.catalogue.personal import Harmless
from klaviyo_pg.catalogue.shared import SYNCED_AT
from klaviyo_pg.catalogue.types import JSON, KEY, TEXT, Absent, Column, Load, Table, View

_KEY = Column("key", KEY, "Digest of the account and of the columns that identify the row.", personal=Harmless.KEY)
_CONVERSIONS = (dimensions.METRICS, account.MAPPED_METRICS, account.CUSTOM_METRICS)
_OF_MESSAGES = (
    *events.EVENT_TABLES,  # DESTINATIONS can bring the events of any metric into any table
    *_CONVERSIONS,
    attribution.EVENT_ATTRIBUTIONS,
    dimensions.CAMPAIGNS,
    dimensions.AUTOMATIONS,
    messages.CAMPAIGN_MESSAGES,
    messages.FLOW_MESSAGES,
)


@dataclass(frozen=True, eq=False)
class StoredMart:
    """A mart and the table that keeps its result.

    - `identity`: the columns that identify a row within an account.
    - `sources`: the tables that the result depends on.
    - `is_of_the_day`: the result also depends on the present, so that a copy of an earlier day is out of date.
    - `load`: how the result is merged into the table.
    """

    mart: View
    identity: tuple[str, ...]
    sources: tuple[Table, ...]
    load: Load
    is_of_the_day: bool = False

    @property
    def name(self) -> str:
        """The name of the mart."""
        return self.mart.name

    @property
    def table(self) -> Table:
        """The table that keeps the result."""
        return self.load.table


def _stored(
    mart: View,
    identity: tuple[str, ...],
    sources: tuple[Table, ...],
    is_of_the_day: bool = False,
    indexes: tuple[tuple[str, ...], ...] = (),
) -> StoredMart:
    columns = tuple(_protected(column) for column in mart.columns if column.name != "integration")
    table = Table(
        f"{mart.name}_stored",
        f"The rows of the view {mart.name} as of the time in stored_marts, for accounts with STORED_MARTS.",
        (_KEY, *columns, SYNCED_AT),
        indexes=indexes,
    )
    return StoredMart(mart, identity, sources, Load(table, absent=Absent.DELETE), is_of_the_day)


def _protected(column: Column) -> Column:
    return replace(column, personal=Harmless.DERIVED) if column.type in (TEXT, KEY, JSON) else column


CAMPAIGN_PERFORMANCE = _stored(marts.CAMPAIGN_PERFORMANCE, ("campaign_key", "campaign_id"), _OF_MESSAGES)
FLOW_PERFORMANCE = _stored(marts.FLOW_PERFORMANCE, ("automation_key", "message_key"), _OF_MESSAGES)
MEMBER_ENGAGEMENT = _stored(
    marts.MEMBER_ENGAGEMENT,
    ("member_key",),
    (*events.EVENT_TABLES, *_CONVERSIONS, dimensions.MEMBERS),
    is_of_the_day=True,
    indexes=(("member_key",),),
)
LIST_GROWTH = _stored(
    marts.LIST_GROWTH, ("list_id", "day"), (membership.MEMBER_LISTS, dimensions.LISTS, account.ACCOUNTS)
)
DELIVERABILITY = _stored(
    marts.DELIVERABILITY,
    ("day", "domain"),
    (events.SENDS, events.BOUNCES, events.OPENS, events.SPAMS, account.ACCOUNTS),
    indexes=(("day",),),
)
STORED_MARTS = {
    each.name: each for each in (CAMPAIGN_PERFORMANCE, FLOW_PERFORMANCE, MEMBER_ENGAGEMENT, LIST_GROWTH, DELIVERABILITY)
}
"""The marts that can be stored, by name."""
