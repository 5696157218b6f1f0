"""Generates an account from its options: metrics, campaigns, flows, lists and segments. `events` generates the rest."""

from datetime import UTC, datetime, timedelta
from random import Random

from sandbox.account.content import METRICS, SUBJECTS
from sandbox.account.events import generate_events
from sandbox.account.ids import token, ulid
from sandbox.account.model import (
    API,
    Account,
    Campaign,
    CampaignMessage,
    Flow,
    FlowMessage,
    Group,
    Integration,
    Metric,
    Options,
    metric_id,
)
from sandbox.account.people import People
from sandbox.account.tags import add_tags
from sandbox.hashing import stable_hash

_INTEGRATIONS = {
    "klaviyo": Integration("0rG4eQ", "klaviyo", "Klaviyo", "Internal"),
    "api": API,
    "shop": Integration("0eMvjm", "shopify", "Shopify", "eCommerce"),
    "uncategorised": Integration("0Xq2Lp", "custom", 'Home-made "thing"', None),
}
_FLOWS = 60
_LISTS = ("Newsletter", "VIP", "Newsletter", "Popup \"10% off\"", "Checkout", "It's a list", "Events, 2026", "🎈 Party",
          "SMS", "Preview", "<b>Old</b>", "Empty", "Staff")  # fmt: skip
_SEGMENTS = ("Engaged 30 days", "Engaged 90 days", "Lapsed", "Big spenders", "Germany", "Never bought", "No \"opens\"",
             "Birthday", "Clicked, not bought", "漢字", "Empty segment")  # fmt: skip


def generate(options: Options) -> Account:
    """Return the account that these options describe."""
    people = People(options.account, options.seed, options.members, options.start, options.end)
    rng = Random(f"account:{options.account}:{options.seed}")
    lists = _groups(options, rng, _LISTS, is_segment=False)
    segments = _groups(options, rng, _SEGMENTS, is_segment=True)
    campaigns = _campaigns(options, rng, list(lists), list(segments))
    flows = _flows(options, rng)
    timeline = generate_events(options, people, list(lists.values()), list(campaigns.values()), list(flows.values()))
    _fill_segments(list(segments.values()), people)
    account = Account(options, people, _metrics(options), campaigns, flows, lists, segments, timeline)
    _delete_some(account)
    add_tags(account)
    return account


def campaigns_and_flows(
    options: Options, lists: list[str], segments: list[str]
) -> tuple[dict[str, Campaign], dict[str, Flow]]:
    """Return the campaigns and flows of an account that has these lists and segments."""
    rng = Random(f"account:{options.account}:{options.seed}")
    return _campaigns(options, rng, lists, segments), _flows(options, rng)


def integration(name: str | None) -> Integration | None:
    """Return the integration with this name."""
    return _INTEGRATIONS[name] if name else None


def _metrics(options: Options) -> dict[str, Metric]:
    first = options.until - timedelta(days=options.days + 400)
    metrics = {}
    for at, kind in enumerate(METRICS):
        created = first + timedelta(minutes=97 * at)
        row_id = metric_id(options, kind.name)
        source = integration(kind.integration)
        metrics[row_id] = Metric(at, row_id, kind.name, created, created + timedelta(days=at), source)
    return metrics


def _groups(options: Options, rng: Random, names: tuple[str, ...], is_segment: bool) -> dict[str, Group]:
    groups = {}
    for at, name in enumerate(names):
        created = options.until - timedelta(days=options.days, minutes=rng.randrange(60 * 24 * 300))
        row_id = token("segment" if is_segment else "list", options.account, options.seed, at)
        groups[row_id] = Group(
            id=row_id,
            name=name,
            created=created,
            updated=created + timedelta(seconds=rng.randrange(int((options.until - created).total_seconds()))),
            is_segment=is_segment,
            opt_in_process=("single_opt_in", "double_opt_in")[at % 2],
            is_active=at % 10 != 9,
            is_starred=at % 4 == 0,
        )
    return groups


def _fill_segments(segments: list[Group], people: People) -> None:
    for at, segment in enumerate(segments[:-1]):
        for person in range(at, len(people), 4 + 3 * at):
            segment.joined[person] = people.updated[person]


def _campaigns(options: Options, rng: Random, lists: list[str], segments: list[str]) -> dict[str, Campaign]:
    campaigns = {}
    for at in range(180 + options.days // 3):
        campaign = _campaign(options, rng, at, lists, segments)
        campaigns[campaign.id] = campaign
    return campaigns


def _campaign(options: Options, rng: Random, at: int, lists: list[str], segments: list[str]) -> Campaign:
    channel = "sms" if at % 8 == 5 else "mobile_push" if at % 16 == 9 else "email"
    status = ("Draft", "Scheduled", "Cancelled", "Sending")[at // 11 % 4] if at % 11 == 10 else "Sent"
    created = options.until - timedelta(seconds=rng.uniform(90_000, options.days * 86_400))
    sent = created + timedelta(seconds=rng.uniform(600, 80_000)) if status in ("Sent", "Sending") else None
    send_time = sent or (options.until + timedelta(days=2) if status == "Scheduled" else None)
    updated = min(options.until, (sent or created) + timedelta(seconds=rng.uniform(60, 600_000)))
    row_id = ulid(created.timestamp(), stable_hash("campaign", options.account, options.seed, at))
    names = ("Weekly", 'Flash "Sale"', "It's on", "🎁 Gift guide", "New\nlines", "VIP, early access")
    campaign = Campaign(
        id=row_id,
        name=f"{names[at % len(names)]} #{at}",
        status=status,
        archived=at % 9 == 4,
        channel=channel,
        included=rng.sample([*lists, *segments], k=1 + (at % 5 == 0)),
        excluded=rng.sample(segments, k=1) if at % 3 == 0 else [],
        send_strategy="ab_test_campaign" if _is_ab(at, channel) else "static",
        created_at=created,
        updated_at=updated,
        scheduled_at=send_time,
        send_time=send_time,
    )
    campaign.messages = [_message(options, campaign, at, variation) for variation in range(1 + _is_ab(at, channel))]
    return campaign


def _is_ab(at: int, channel: str) -> bool:
    return channel == "email" and at % 12 == 6


def _message(options: Options, campaign: Campaign, at: int, variation: int) -> CampaignMessage:
    subject = SUBJECTS[(at + variation) % len(SUBJECTS)]
    content: dict[str, object]
    if campaign.channel == "email":
        content = {
            "subject": subject,
            "preview_text": "" if at % 4 == 0 else "See inside",
            "from_email": "news@example.com",
            "from_label": 'The "Shop" — Zoë',
            "reply_to_email": None,
            "cc_email": None,
            "bcc_email": None,
        }
    elif campaign.channel == "sms":
        content = {"body": f"{subject}\nReply STOP to stop", "media_url": None}
    else:
        content = {"title": subject, "body": "Open the app", "dynamic_image": None}
    randomness = stable_hash("message", options.account, options.seed, at, variation)
    return CampaignMessage(
        id=ulid(campaign.created_at.timestamp() + 1, randomness),
        campaign_id=campaign.id,
        channel=campaign.channel,
        label=f"Message {variation + 1}",
        content=content,
        created_at=campaign.created_at,
        updated_at=campaign.updated_at,
        send_times=[campaign.scheduled_at] if campaign.scheduled_at else [],
    )


def _flows(options: Options, rng: Random) -> dict[str, Flow]:
    triggers = ("Metric", "Added to List", "Date Based", "Price Drop", "Low Inventory", "Unconfigured")
    names = (
        "Welcome",
        'Abandoned "cart"',
        "Win-back",
        "It's your birthday 🎂",
        "Back in stock",
        "Post-purchase",
    )
    flows = {}
    for at in range(_FLOWS):
        created = datetime.fromtimestamp(options.start - rng.randrange(60, 300 * 86_400), UTC)
        row_id = token("flow", options.account, options.seed, at)
        messages = [
            FlowMessage(
                token("flow-message", options.account, options.seed, at, step),
                f"{names[at % len(names)]} {step + 1}",
                SUBJECTS[(at * 3 + step) % len(SUBJECTS)],
            )
            for step in range(1 + at % 4)
        ]
        status = ("live", "live", "live", "manual", "draft")[at % 5]
        updated = created + timedelta(seconds=rng.randrange(int((options.until - created).total_seconds())))
        name = f"{names[at % len(names)]} {at}"
        flows[row_id] = Flow(
            row_id, name, status, at % 7 == 6, triggers[at % len(triggers)], created, updated, messages
        )
    return flows


def _delete_some(account: Account) -> None:
    """Delete two flows and three campaigns that events still refer to."""
    sent = [campaign for campaign in account.campaigns.values() if campaign.status == "Sent"]
    live = [flow for flow in account.flows.values() if flow.status == "live"]
    for campaign in (sent[2], sent[40 % len(sent)], sent[-3]):
        del account.campaigns[campaign.id]
    for flow in (live[1], live[-2]):
        del account.flows[flow.id]
