"""The filter grammar, and the errors for filters that Klaviyo rejects."""

from datetime import UTC, datetime

import pytest

from sandbox.account.timeline import EARLIEST, LATEST
from sandbox.api.errors import ApiError
from sandbox.current import allowed
from sandbox.current.filters import Condition, Field, matches, parse, span

JULY = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp())
REASON = "subscriptions.email.marketing.suppression.reason"
UNREADABLE = "Invalid filter provided. Verify your parentheses match."
EVENT_FIELDS = "datetime, metric, metric_id, profile, profile_id, timestamp"


@pytest.mark.parametrize(
    ("text", "fields", "conditions"),
    [
        pytest.param(
            'equals(metric_id,"ABC123")',
            allowed.EVENTS.filters,
            [Condition("equals", "metric_id", "ABC123")],
            id="double quotes",
        ),
        pytest.param(
            "equals(metric_id,'ABC123')",
            allowed.EVENTS.filters,
            [Condition("equals", "metric_id", "ABC123")],
            id="single quotes",
        ),
        pytest.param(
            'contains(name,"a\\"b, (c)\\\\")',
            allowed.CAMPAIGNS.filters,
            [Condition("contains", "name", 'a"b, (c)\\')],
            id="escapes and punctuation in a string",
        ),
        pytest.param(
            "contains(name,'🎁\ntwo lines')",
            allowed.CAMPAIGNS.filters,
            [Condition("contains", "name", "🎁\ntwo lines")],
            id="any character in a string",
        ),
        pytest.param(
            "greater-or-equal(datetime,2026-07-01T00:00:00Z),less-than(datetime,2026-07-01T01:00:00+00:00)",
            allowed.EVENTS.filters,
            [Condition("greater-or-equal", "datetime", JULY), Condition("less-than", "datetime", JULY + 3600)],
            id="joined by a comma",
        ),
        pytest.param(
            "and(greater-than(datetime,2026-07-01),and(less-or-equal(timestamp,5),has(profile)))",
            allowed.EVENTS.filters,
            [
                Condition("greater-than", "datetime", JULY),
                Condition("less-or-equal", "timestamp", 5),
                Condition("has", "profile", None),
            ],
            id="nested and",
        ),
        pytest.param(
            "less-than(datetime,2026-07-01T02:00:00+02:00)",
            allowed.EVENTS.filters,
            [Condition("less-than", "datetime", JULY)],
            id="offset",
        ),
        pytest.param(
            "less-than(datetime,2026-07-01T00:00:00.999)",
            allowed.EVENTS.filters,
            [Condition("less-than", "datetime", JULY)],
            id="fractions are dropped",
        ),
        pytest.param(
            'any(email,["a@example.com","b@example.com"])',
            allowed.PROFILES.filters,
            [Condition("any", "email", ("a@example.com", "b@example.com"))],
            id="list",
        ),
        pytest.param(
            f'equals({REASON},"SPAM_COMPLAINT")',
            allowed.PROFILES.filters,
            [Condition("equals", REASON, "SPAM_COMPLAINT")],
            id="dotted field",
        ),
        pytest.param(
            "equals(archived,TRUE)", allowed.FLOWS.filters, [Condition("equals", "archived", True)], id="boolean"
        ),
    ],
)
def test_valid_filters_are_parsed(text: str, fields: dict[str, Field], conditions: list[Condition]) -> None:
    assert parse(text, fields) == conditions


@pytest.mark.parametrize(
    ("text", "fields", "detail"),
    [
        pytest.param(
            "equals(name,'x')",
            allowed.CAMPAIGNS.filters,
            "'equals' is not an allowed filter operator for name.  Allowed operators are contains",
            id="operator of another field",
        ),
        pytest.param(
            "greater-or-equal(updated,2026-07-01)",
            allowed.PROFILES.filters,
            "'greater-or-equal' is not an allowed filter operator for updated."
            "  Allowed operators are greater-than, less-than",
            id="inclusive bound of profiles",
        ),
        pytest.param(
            "less-than(updated,2026-07-01)",
            allowed.LISTS.filters,
            "'less-than' is not an allowed filter operator for updated.  Allowed operators are greater-than",
            id="upper bound of lists",
        ),
        pytest.param(
            "has(metric_id)",
            allowed.EVENTS.filters,
            "'has' is not an allowed filter operator for metric_id.  Allowed operators are equals",
            id="has with an attribute",
        ),
        pytest.param(
            "equals(email,'x')",
            allowed.EVENTS.filters,
            f"'email' is not a filterable field.  Filterable fields are {EVENT_FIELDS}",
            id="unknown field",
        ),
        pytest.param("equals(metric_id,'x'", allowed.EVENTS.filters, UNREADABLE, id="missing parenthesis"),
        pytest.param("equals(metric_id,'x'))", allowed.EVENTS.filters, UNREADABLE, id="extra parenthesis"),
        pytest.param("equals(metric_id, 'x')", allowed.EVENTS.filters, UNREADABLE, id="space after a comma"),
        pytest.param(
            "less-than(datetime,2026-07-01T00:00:00 00:00)",
            allowed.EVENTS.filters,
            UNREADABLE,
            id="plus sign without encoding",
        ),
        pytest.param("equals(metric_id,'x)", allowed.EVENTS.filters, UNREADABLE, id="missing quote"),
        pytest.param("equals(metric_id,)", allowed.EVENTS.filters, UNREADABLE, id="no value"),
        pytest.param("equals()", allowed.EVENTS.filters, UNREADABLE, id="no field"),
        pytest.param("metric_id", allowed.EVENTS.filters, UNREADABLE, id="no operator"),
        pytest.param("has(profile),", allowed.EVENTS.filters, UNREADABLE, id="trailing comma"),
        pytest.param("any(email,[])", allowed.PROFILES.filters, UNREADABLE, id="empty list"),
        pytest.param(
            "equals(email,['a'])", allowed.PROFILES.filters, "Invalid value for equals(email).", id="list for equals"
        ),
        pytest.param("any(email,'a')", allowed.PROFILES.filters, "Invalid value for any(email).", id="text for any"),
        pytest.param(
            "equals(metric_id,ABC)",
            allowed.EVENTS.filters,
            "Invalid filter provided. Strings must be quoted: ABC",
            id="unquoted text",
        ),
        pytest.param(
            "less-than(datetime,soon)", allowed.EVENTS.filters, "Invalid datetime: soon", id="invalid datetime"
        ),
        pytest.param("less-than(timestamp,1.5)", allowed.EVENTS.filters, "Invalid number: 1.5", id="fraction"),
        pytest.param("equals(archived,1)", allowed.FLOWS.filters, "Invalid boolean: 1", id="invalid boolean"),
    ],
)
def test_invalid_filters_are_refused(text: str, fields: dict[str, Field], detail: str) -> None:
    """A filter that Klaviyo rejects is a 400 that gives the reason and names the filter parameter."""
    with pytest.raises(ApiError) as refused:
        parse(text, fields)
    assert (refused.value.status, refused.value.code, refused.value.title) == (400, "invalid", "Invalid input.")
    assert refused.value.detail == detail
    assert refused.value.source == {"parameter": "filter"}


@pytest.mark.parametrize(
    ("operator", "operand", "value", "expected"),
    [
        pytest.param("equals", "a", "a", True, id="equal"),
        pytest.param("equals", "a", "A", False, id="equals is case-sensitive"),
        pytest.param("equals", True, False, False, id="booleans"),
        pytest.param("any", ("a", "b"), "b", True, id="one of several"),
        pytest.param("any", ("a", "b"), "c", False, id="none of several"),
        pytest.param("contains", "SALE", "Flash sale", True, id="contains is case-insensitive"),
        pytest.param("starts-with", "fl", "Flash sale", True, id="start"),
        pytest.param("ends-with", "fl", "Flash sale", False, id="end"),
        pytest.param("greater-than", 5, 5, False, id="greater than is exclusive"),
        pytest.param("greater-or-equal", 5, 5, True, id="greater or equal is inclusive"),
        pytest.param("less-than", 5, 5, False, id="less than is exclusive"),
        pytest.param("less-or-equal", 5, 5, True, id="less or equal is inclusive"),
        pytest.param("less-than", 5, None, False, id="a missing value meets no condition"),
    ],
)
def test_operators_compare(operator: str, operand: object, value: object, expected: bool) -> None:
    assert matches(Condition(operator, "field", operand), value) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("greater-or-equal(timestamp,10),less-than(timestamp,20)", (10, 20), id="half-open"),
        pytest.param(
            "greater-than(timestamp,10),less-or-equal(timestamp,20)", (11, 21), id="the other inclusive bounds"
        ),
        pytest.param("greater-than(timestamp,10),greater-than(timestamp,5)", (11, LATEST), id="narrowest bound wins"),
        pytest.param("has(profile)", (EARLIEST, LATEST), id="no bound"),
    ],
)
def test_range_conditions_give_half_open_seconds(text: str, expected: tuple[int, int]) -> None:
    assert span(parse(text, allowed.EVENTS.filters), "datetime", "timestamp") == expected
