"""The table of all endpoints of the current dialect, with the scopes and rate limits that Klaviyo publishes."""

from sandbox.account import Account
from sandbox.api.endpoint import Answer, Endpoint
from sandbox.api.limits import REPORTS, XL, XS, L, Limit, M, S
from sandbox.current import allowed
from sandbox.current.designs import Designs
from sandbox.current.dialect import CURRENT
from sandbox.current.dimensions import Dimensions
from sandbox.current.events import Events
from sandbox.current.omnichannel import Omnichannel
from sandbox.current.profiles import Profiles
from sandbox.current.reports import Reports
from sandbox.current.revisions import by_revision
from sandbox.current.shop import Shop


def current_endpoints(account: Account) -> list[Endpoint]:
    """Return every endpoint."""
    dimensions, profiles, events = Dimensions(account), Profiles(account), Events(account)
    omnichannel, designs, reports = Omnichannel(account), Designs(account), Reports(account)
    shop = Shop(account)
    return [
        _get("accounts", XS, dimensions.accounts, "accounts:read"),
        _get("accounts/{id}", XS, dimensions.account, "accounts:read"),
        _get("metrics", M, dimensions.metrics, "metrics:read"),
        _get("metrics/{id}", M, dimensions.metric, "metrics:read"),
        _get("custom-metrics", S, dimensions.custom_metrics, "metrics:read"),
        _get("mapped-metrics", S, dimensions.mapped_metrics, "metrics:read"),
        _get("campaigns", M, by_revision(dimensions.campaigns, omnichannel.campaigns), "campaigns:read"),
        _get("campaigns/{id}", M, by_revision(dimensions.campaign, omnichannel.campaign), "campaigns:read"),
        _get(
            "campaigns/{id}/campaign-messages",
            M,
            by_revision(dimensions.campaign_messages, omnichannel.of_campaign),
            "campaigns:read",
        ),
        _get(
            "campaign-messages/{id}", M, by_revision(dimensions.campaign_message, omnichannel.message), "campaigns:read"
        ),
        _get("campaign-messages", M, by_revision(None, omnichannel.messages), "campaigns:read"),
        _get(
            "campaign-messages/{id}/campaign-variations",
            M,
            by_revision(None, omnichannel.variations),
            "campaigns:read",
        ),
        _get("flows", S, dimensions.flows, "flows:read"),
        _get("flows/{id}", S, dimensions.flow, "flows:read"),
        _get("tags", S, dimensions.tags, "tags:read"),
        _get("templates", L, by_revision(designs.templates, designs.templates_with_screenshots), "templates:read"),
        _get("templates/{id}", L, designs.template, "templates:read"),
        _get("forms", S, designs.forms, "forms:read"),
        _get("forms/{id}/form-versions", S, designs.versions_of_form, "forms:read"),
        _get("images", M, designs.images, "images:read"),
        _get("images/{id}", M, designs.image, "images:read"),
        _get("catalog-items", XL, shop.listed(allowed.CATALOG_ITEMS), "catalogs:read"),
        _get("catalog-variants", XL, shop.listed(allowed.CATALOG_VARIANTS), "catalogs:read"),
        _get("catalog-categories", XL, shop.listed(allowed.CATALOG_CATEGORIES), "catalogs:read"),
        _get("coupons", L, shop.listed(allowed.COUPONS), "coupons:read"),
        _get("coupon-codes", XL, shop.listed(allowed.COUPON_CODES), "coupon-codes:read"),
        _get("reviews", M, shop.listed(allowed.REVIEWS), "reviews:read"),
        _get("push-tokens", M, shop.listed(allowed.PUSH_TOKENS), "profiles:read", "push-tokens:read"),
        _get("lists", L, dimensions.lists, "lists:read"),
        _get("lists/{id}", L, dimensions.list, "lists:read"),
        _get("lists/{id}/profiles", L, profiles.of_list, "lists:read", "profiles:read"),
        _get("lists/{id}/relationships/profiles", L, profiles.ids_of_list, "lists:read", "profiles:read"),
        _get("segments", L, dimensions.segments, "segments:read"),
        _get("segments/{id}", L, dimensions.segment, "segments:read"),
        _get("segments/{id}/profiles", L, profiles.of_segment, "segments:read", "profiles:read"),
        _get("segments/{id}/relationships/profiles", L, profiles.ids_of_segment, "segments:read", "profiles:read"),
        _get("profiles", L, profiles.all, "profiles:read"),
        _get("profiles/{id}", L, profiles.one, "profiles:read"),
        _get("events", XL, events.page, "events:read"),
        _get("events/{id}", M, events.one, "events:read"),
        _get("events/{id}/metric", XL, events.metric, "events:read", "metrics:read"),
        _get("events/{id}/profile", XL, events.profile, "events:read", "profiles:read"),
        _post("metric-aggregates", S, events.aggregates, "metrics:read"),
        _post("campaign-values-reports", REPORTS, reports.campaign_values, "campaigns:read"),
        _post("flow-values-reports", REPORTS, reports.flow_values, "flows:read"),
        _post("flow-series-reports", REPORTS, reports.flow_series, "flows:read"),
    ]


def _get(path: str, limit: Limit, answer: Answer, *scopes: str) -> Endpoint:
    return Endpoint("GET", f"/api/{path}", scopes, limit, answer, CURRENT)


def _post(path: str, limit: Limit, answer: Answer, *scopes: str) -> Endpoint:
    return Endpoint("POST", f"/api/{path}", scopes, limit, answer, CURRENT)
