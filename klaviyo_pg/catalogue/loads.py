"""The loads of each table: one value for each way in which rows reach it."""

from dataclasses import replace

from klaviyo_pg.catalogue import (
    account,
    attribution,
    bookkeeping,
    content,
    dimensions,
    events,
    membership,
    messages,
    on_request,
    reports,
    segments,
    tags,
)
from klaviyo_pg.catalogue.personal import Personal
from klaviyo_pg.catalogue.types import NOT_NULL, Absent, Load, Merge

METRICS = Load(dimensions.METRICS, absent=Absent.MARK)
ACCOUNTS = Load(account.ACCOUNTS)
CUSTOM_METRICS = Load(account.CUSTOM_METRICS, absent=Absent.MARK)
MAPPED_METRICS = Load(account.MAPPED_METRICS, absent=Absent.MARK)
CAMPAIGNS = Load(
    dimensions.CAMPAIGNS, absent=Absent.MARK, absent_where={"automation_key": None, "is_placeholder": False}
)
FLOW_CAMPAIGNS = Load(
    dimensions.CAMPAIGNS,
    merges={
        "name": Merge.FROM_LATEST_ROW,
        "subject": Merge.FROM_LATEST_ROW,
        "created_at": Merge.EARLIEST,
        "updated_at": Merge.LATEST,
    },
    personal={  # anyone who sends an event chooses its properties, and a subject is the one that a person received
        "id": Personal.MESSAGE_ID,
        "name": Personal.TEXT,
        "subject": Personal.TEXT,
    },
    # events never overwrite a campaign that the source lists itself
    update_where=({"automation_key": NOT_NULL}, {"is_placeholder": True}),
)
AUTOMATIONS = Load(dimensions.AUTOMATIONS, absent=Absent.MARK)
CAMPAIGN_PLACEHOLDERS, FLOW_PLACEHOLDERS = (
    Load(
        table,
        omits=frozenset(table.column_names) - {"key", "id", key, "type", "deleted_at", "is_placeholder"},
        merges=dict.fromkeys(table.column_names, Merge.KEEP),
        personal={"id": Personal.MESSAGE_ID},
    )
    for table, key in ((dimensions.CAMPAIGNS, "campaign_key"), (dimensions.AUTOMATIONS, "automation_key"))
)
"""Campaigns and flows that events mention, for those that the source does not list. A stored row stays as it is."""
LISTS = Load(dimensions.LISTS, absent=Absent.MARK, absent_where={"list_type": "list"})
SEGMENTS_AS_LISTS = Load(dimensions.LISTS, absent=Absent.MARK, absent_where={"list_type": "segment"})
SEGMENTS = Load(segments.SEGMENTS, absent=Absent.MARK)
SEGMENT_MEMBERS = Load(segments.SEGMENT_MEMBERS)
CAMPAIGN_LISTS = Load(dimensions.CAMPAIGN_LISTS, absent=Absent.DELETE, absent_per="campaign_id")
CAMPAIGN_MESSAGES = Load(messages.CAMPAIGN_MESSAGES, absent=Absent.MARK)
FLOW_ACTIONS = Load(messages.FLOW_ACTIONS, absent=Absent.MARK)
FLOW_MESSAGES = Load(messages.FLOW_MESSAGES, absent=Absent.MARK)
TEMPLATES = Load(content.TEMPLATES)
FORMS = Load(content.FORMS)
FORM_VERSIONS = Load(
    content.FORM_VERSIONS,
    absent=Absent.MARK,  # a form is loaded with all versions; without any, as one row that has no version
    absent_per="form_id",
)
IMAGES = Load(content.IMAGES)
CATALOG_ITEMS = Load(on_request.CATALOG_ITEMS)
CATALOG_VARIANTS = Load(on_request.CATALOG_VARIANTS)
CATALOG_CATEGORIES = Load(on_request.CATALOG_CATEGORIES, absent=Absent.MARK)
COUPONS = Load(on_request.COUPONS, absent=Absent.MARK)
COUPON_CODES = Load(on_request.COUPON_CODES)
REVIEWS = Load(on_request.REVIEWS)
PUSH_TOKENS = Load(on_request.PUSH_TOKENS)
MEMBER_PREDICTIONS = Load(on_request.MEMBER_PREDICTIONS)
TAGS = Load(tags.TAGS, absent=Absent.MARK)
TAG_GROUPS = Load(tags.TAG_GROUPS, absent=Absent.MARK)
TAGGED_OBJECTS = Load(
    tags.TAGGED_OBJECTS,
    absent=Absent.MARK,  # an object is loaded with all tags; without any, as one row that has no tag
    absent_per="object_key",
)
CAMPAIGN_REPORTS = Load(
    reports.CAMPAIGN_REPORTS,
    absent=Absent.MARK,  # a day is loaded as a whole; without anything sent, as one row that has no key
    absent_per="sent_on",
    is_doubted=True,
)
FLOW_REPORTS = Load(reports.FLOW_REPORTS, absent=Absent.MARK, absent_per="sent_on", is_doubted=True)
TAGGED_OBJECTS_OF = {
    object_type: replace(TAGGED_OBJECTS, absent_where={"object_type": object_type})
    for object_type in ("campaign", "flow", "list", "segment")
}
"""By type: objects of different types could have the same ID."""
_UNDIGESTED = {"details_digest": Merge.CLEAR}  # where properties are also loaded from pages of events
MEMBERS = Load(dimensions.MEMBERS, mostly_new=True, newer_by="updated_at")
MEMBERS_WITHOUT_CONSENT = replace(MEMBERS, omits=frozenset({"consent", "consent_timestamp"}))
"""People whose consent the source left out. A stored person keeps theirs."""
UNDIGESTED_MEMBERS = replace(MEMBERS, merges=_UNDIGESTED)
_OF_A_STUB = ("key", "id", "email", "member_key")
MEMBER_STUBS = Load(
    dimensions.MEMBERS,
    mostly_new=True,
    omits=frozenset(dimensions.MEMBERS.column_names) - {*_OF_A_STUB},
    merges=dict.fromkeys(dimensions.MEMBERS.column_names, Merge.KEEP),
)
"""People who were only met, in events or lists. A stored person stays as they are; a new one is read later by ID."""
CONSENTING_EVENT_MEMBERS = Load(  # for event pages that include whole people with their consent
    dimensions.MEMBERS, omits=frozenset({"locale", "last_event_date"}), merges=_UNDIGESTED, newer_by="updated_at"
)
OVERWRITING_MEMBERS = (UNDIGESTED_MEMBERS, CONSENTING_EVENT_MEMBERS)
"""Records of a dialect that has less of a person than `profiles` reads, so that complete records get worse by them."""
MEMBER_ATTRIBUTES = Load(
    dimensions.MEMBER_ATTRIBUTES,
    newer_by="updated_at",
    absent=Absent.DELETE,  # a person is loaded with all properties; without any, as one row that has no name
    absent_per="key",
)
NEW_MEMBER_ATTRIBUTES = replace(MEMBER_ATTRIBUTES, mostly_new=True)
"""The properties of people who have no stored properties yet."""
MEMBER_CONSENTS = Load(
    membership.MEMBER_CONSENTS,
    absent=Absent.DELETE,  # a person is loaded with all channels; without any, as one row that has no channel
    absent_per="member_id",
)
NEW_MEMBER_CONSENTS = replace(MEMBER_CONSENTS, mostly_new=True)
EMAIL_CONSENTS = replace(MEMBER_CONSENTS, absent_where={"channel": "email"})
"""The consent to email of people on pages of events, which say nothing of other channels."""
LIST_SUPPRESSIONS_OF_PEOPLE = Load(
    membership.LIST_SUPPRESSIONS,
    absent=Absent.MARK,  # a person is loaded with all suppressions; without any, as one row that has no list
    absent_per="member_id",
)
DETAILS = (
    MEMBER_ATTRIBUTES,
    NEW_MEMBER_ATTRIBUTES,
    MEMBER_CONSENTS,
    NEW_MEMBER_CONSENTS,
    EMAIL_CONSENTS,
    LIST_SUPPRESSIONS_OF_PEOPLE,
)
"""The loads of what belongs to a person: they are stored with the person's row, or not at all."""
EVENTS = {table.name: Load(table, mostly_new=True, newer_by="extracted_at") for table in events.EVENT_TABLES}
EVENT_ATTRIBUTIONS = Load(attribution.EVENT_ATTRIBUTIONS, newer_by="extracted_at")
ATTRIBUTION_IDS = Load(
    attribution.EVENT_ATTRIBUTIONS, merges=dict.fromkeys(attribution.EVENT_ATTRIBUTIONS.column_names, Merge.KEEP)
)
"""Attributions of which only the ID could be read. Stored ones stay as they are."""
STG_MEMBER_EXCLUSIONS = Load(membership.STG_MEMBER_EXCLUSIONS, absent=Absent.DELETE)
_PROFILE_STAYS = {"member_id": Merge.UNLESS_NULL}
"""The legacy dialect does not return the profile of an exclusion, and a stored person may have no address."""
MEMBER_EXCLUSIONS = Load(membership.MEMBER_EXCLUSIONS, absent=Absent.MARK, merges=_PROFILE_STAYS)
SWEPT_EXCLUSIONS = Load(membership.SWEPT_EXCLUSIONS, newer_by="created_at")
NEW_EXCLUSIONS = Load(membership.MEMBER_EXCLUSIONS, merges=_PROFILE_STAYS, update_where=({"removed_at": NOT_NULL},))
STG_MEMBER_LISTS = Load(membership.STG_MEMBER_LISTS, mostly_new=True)
SUBSCRIPTION_CHANGES = Load(membership.SUBSCRIPTION_CHANGES, omits=frozenset({"list_id"}))  # resolved from the name
LIST_SUPPRESSIONS = Load(membership.LIST_SUPPRESSIONS)
MISSING_PROFILES = Load(membership.MISSING_PROFILES, omits=frozenset({"asked_at"}))
ASKED_PROFILES = Load(membership.MISSING_PROFILES, omits=frozenset({"missing_since", "last_missing_at"}))
PROFILE_MERGES = Load(
    membership.PROFILE_MERGES, omits=frozenset({"events_moved_at"}), merges={"detected_at": Merge.EARLIEST}
)
SWEPT_MEMBERS = Load(membership.SWEPT_MEMBERS)
SWEPT_ROWS = Load(bookkeeping.SWEPT_ROWS)
SWEEPS = Load(bookkeeping.SWEEPS, omits=frozenset({"found"}))
REJECTS = Load(bookkeeping.REJECTS, merges={"run_id": Merge.KEEP})
OF_EVENT_PAGES = {
    **EVENTS,
    "subscription_changes": SUBSCRIPTION_CHANGES,
    "event_attributions": EVENT_ATTRIBUTIONS,
    "attribution_ids": ATTRIBUTION_IDS,
    "member_stubs": MEMBER_STUBS,
    "consenting_event_members": CONSENTING_EVENT_MEMBERS,
    "member_attributes": MEMBER_ATTRIBUTES,
    "email_consents": EMAIL_CONSENTS,
    "flow_campaigns": FLOW_CAMPAIGNS,
    "campaign_placeholders": CAMPAIGN_PLACEHOLDERS,
    "flow_placeholders": FLOW_PLACEHOLDERS,
}
"""The loads that a page of events can need, by name, in the order in which they are stored."""
