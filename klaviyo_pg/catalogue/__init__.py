"""The declarative catalogue: each table, view and column of the warehouse is one value. Knows no API and no SQL."""

from klaviyo_pg.catalogue import bookkeeping, dimensions, events, loads, membership, messages, tags, views
from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.types import Absent, Column, Load, Merge, Table, Type, View

SPECIFIED = (
    dimensions.METRICS,
    dimensions.CAMPAIGNS,
    dimensions.AUTOMATIONS,
    dimensions.LISTS,
    dimensions.CAMPAIGN_LISTS,
    dimensions.MEMBERS,
    dimensions.MEMBER_ATTRIBUTES,
    *events.EVENT_TABLES,
    membership.STG_MEMBER_EXCLUSIONS,
    membership.MEMBER_EXCLUSIONS,
    membership.STG_MEMBER_LISTS,
    membership.MEMBER_LISTS,
)
ADDED = (
    membership.MEMBER_CONSENTS,
    membership.LIST_SUPPRESSIONS,
    membership.PROFILE_MERGES,
    messages.CAMPAIGN_MESSAGES,
    messages.FLOW_ACTIONS,
    messages.FLOW_MESSAGES,
    tags.TAGS,
    tags.TAG_GROUPS,
    tags.TAGGED_OBJECTS,
)
DATA = (*SPECIFIED, *ADDED)
BOOKKEEPING = (
    membership.SUBSCRIPTION_CHANGES,
    membership.LIST_NAMES,
    membership.MISSING_PROFILES,
    membership.SWEPT_MEMBERS,
    membership.SWEPT_EXCLUSIONS,
    bookkeeping.INTEGRATIONS,
    bookkeeping.WATERMARKS,
    bookkeeping.RUNS,
    bookkeeping.RUN_TABLES,
    bookkeeping.CHUNKS,
    bookkeeping.BACKFILL_CHUNKS,
    bookkeeping.RECONCILIATION,
    bookkeeping.RECONCILED_HISTORY,
    bookkeeping.MISSING_ROWS,
    bookkeeping.SWEEPS,
    bookkeeping.TOUCHED,
    bookkeeping.DERIVATIONS,
    bookkeeping.RATE_LIMITS,
    bookkeeping.PAGE_SIZES,
    bookkeeping.ERASED,
    bookkeeping.ERASED_ADDRESSES,
    bookkeeping.ERASING,
    bookkeeping.ERASING_EVENTS,
    bookkeeping.REJECTS,
)
TABLES = (*DATA, *BOOKKEEPING)
VIEWS = views.VIEWS

__all__ = [
    "ADDED",
    "BOOKKEEPING",
    "DATA",
    "SPECIFIED",
    "TABLES",
    "VIEWS",
    "Absent",
    "Column",
    "Harmless",
    "Load",
    "Merge",
    "Personal",
    "Table",
    "Type",
    "View",
    "bookkeeping",
    "dimensions",
    "events",
    "loads",
    "membership",
    "messages",
    "tags",
    "views",
]
