"""The loads of each table: one value for each way in which rows reach it."""

from klaviyo_pg.catalogue import bookkeeping, dimensions, events, membership
from klaviyo_pg.catalogue.types import Absent, Load, Merge

METRICS = Load(dimensions.METRICS, absent=Absent.MARK)
CAMPAIGNS = Load(dimensions.CAMPAIGNS, absent=Absent.MARK, absent_where={"automation_key": None})
FLOW_CAMPAIGNS = Load(
    dimensions.CAMPAIGNS,
    merges={
        "name": Merge.FROM_LATEST_ROW,
        "subject": Merge.FROM_LATEST_ROW,
        "created_at": Merge.EARLIEST,
        "updated_at": Merge.LATEST,
    },
    update_where={"automation_key": ...},  # events never overwrite a campaign that the source lists itself
)
AUTOMATIONS = Load(dimensions.AUTOMATIONS, absent=Absent.MARK)
LISTS = Load(dimensions.LISTS, absent=Absent.MARK, absent_where={"list_type": "list"})
SEGMENTS = Load(dimensions.LISTS, absent=Absent.MARK, absent_where={"list_type": "segment"})
CAMPAIGN_LISTS = Load(dimensions.CAMPAIGN_LISTS, absent=Absent.DELETE, absent_per="campaign_id")
_CONSENT = ("consent", "consent_timestamp")
MEMBERS = Load(
    dimensions.MEMBERS,
    merges=dict.fromkeys(_CONSENT, Merge.ALWAYS_REPLACE),  # profiles are read in sequence and only they have consent
    newer_by="updated_at",
)
EVENT_MEMBERS = Load(dimensions.MEMBERS, omits=frozenset(_CONSENT), newer_by="updated_at")
CONSENTING_EVENT_MEMBERS = Load(dimensions.MEMBERS, newer_by="updated_at")  # for event pages that include consent
MEMBER_ATTRIBUTES = Load(
    dimensions.MEMBER_ATTRIBUTES,
    newer_by="updated_at",
    absent=Absent.DELETE,  # a person is loaded with all properties; without any, as one row that has no name
    absent_per="key",
)
EVENTS = {table.name: Load(table, mostly_new=True) for table in events.EVENT_TABLES}
STG_MEMBER_EXCLUSIONS = Load(membership.STG_MEMBER_EXCLUSIONS, absent=Absent.DELETE)
MEMBER_EXCLUSIONS = Load(membership.MEMBER_EXCLUSIONS, absent=Absent.MARK)
STG_MEMBER_LISTS = Load(membership.STG_MEMBER_LISTS)
SUBSCRIPTION_CHANGES = Load(membership.SUBSCRIPTION_CHANGES)
SWEPT_MEMBERS = Load(membership.SWEPT_MEMBERS)
REJECTS = Load(bookkeeping.REJECTS, merges={"run_id": Merge.KEEP})
OF_EVENT_PAGES = {
    **EVENTS,
    "flow_campaigns": FLOW_CAMPAIGNS,
    "subscription_changes": SUBSCRIPTION_CHANGES,
    "event_members": EVENT_MEMBERS,
    "consenting_event_members": CONSENTING_EVENT_MEMBERS,
    "member_attributes": MEMBER_ATTRIBUTES,
}
"""The loads that a page of events can need, by name, in the order in which they are stored."""
