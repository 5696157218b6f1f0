"""How rows come into each table, where that is more than replacing what differs."""

from klaviyo_pg.catalogue import bookkeeping, dimensions, events, membership
from klaviyo_pg.catalogue.types import Absent, Load, Merge

METRICS = Load(dimensions.METRICS, absent=Absent.MARK)
CAMPAIGNS = Load(dimensions.CAMPAIGNS, absent=Absent.MARK, within={"automation_key": None})
FLOW_CAMPAIGNS = Load(
    dimensions.CAMPAIGNS,
    merges={
        "name": Merge.OF_LATEST,
        "subject": Merge.OF_LATEST,
        "created_at": Merge.EARLIEST,
        "updated_at": Merge.LATEST,
    },
    only_where={"automation_key": ...},  # a campaign of its own is never overwritten by what events say of it
)
AUTOMATIONS = Load(dimensions.AUTOMATIONS, absent=Absent.MARK)
LISTS = Load(dimensions.LISTS, absent=Absent.MARK, within={"list_type": "list"})
SEGMENTS = Load(dimensions.LISTS, absent=Absent.MARK, within={"list_type": "segment"})
CAMPAIGN_LISTS = Load(dimensions.CAMPAIGN_LISTS, absent=Absent.GO, absent_beside="campaign_id")
_CONSENT = ("consent", "consent_timestamp")
MEMBERS = Load(
    dimensions.MEMBERS,
    merges=dict.fromkeys(
        _CONSENT, Merge.AS_IT_COMES
    ),  # profiles are read in one sequence, and nothing else tells consent
    newer_by="updated_at",
)
EVENT_MEMBERS = Load(dimensions.MEMBERS, leaves_out=frozenset(_CONSENT), newer_by="updated_at")
CONSENTING_EVENT_MEMBERS = Load(dimensions.MEMBERS, newer_by="updated_at")  # where people on event pages tell consent
MEMBER_ATTRIBUTES = Load(
    dimensions.MEMBER_ATTRIBUTES,
    newer_by="updated_at",
    absent=Absent.GO,  # a person comes with all properties; one who has none comes as a row without a name
    absent_beside="key",
)
EVENTS = {table.name: Load(table, mostly_new=True) for table in events.EVENT_TABLES}
STG_MEMBER_EXCLUSIONS = Load(membership.STG_MEMBER_EXCLUSIONS, absent=Absent.GO)
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
"""The loads that a page of events can bring, by name, in the order in which they are stored."""
