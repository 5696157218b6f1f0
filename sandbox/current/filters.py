"""The filter grammar: `operator(field,value)`, several of them joined by commas or by `and(...)`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandbox.account.timeline import EARLIEST, LATEST
from sandbox.api.errors import ApiError
from sandbox.current.errors import invalid

RANGE = ("greater-than", "greater-or-equal", "less-than", "less-or-equal")
_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<mark>[(),\[\]])|(?P<word>[^\s"'(),\[\]]+)""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Field:
    """A field that can be filtered: its operators and the kind of its values (text, number, time or flag)."""

    operators: tuple[str, ...]
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison. The value is in unix seconds for times, a tuple for `any`, and None for `has`."""

    operator: str
    field: str
    value: Any


def parse(text: str, fields: Mapping[str, Field]) -> list[Condition]:
    """Return the conditions of a filter, all of which must hold. Raise ApiError if Klaviyo would reject the filter."""
    tokens = list(_tokens(text))
    conditions = _Parser(tokens).conditions()
    return [_checked(condition, fields) for condition in conditions]


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise _unreadable()
        yield str(token.lastgroup), token[0]
        at = token.end()


def _unreadable() -> ApiError:
    return invalid("Invalid filter provided. Verify your parentheses match.", "filter")


class _Parser:
    """A recursive-descent parser."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens, self._at = tokens, 0

    def conditions(self) -> list[Condition]:
        conditions = self._joined()
        if self._at != len(self._tokens):
            raise _unreadable()
        return conditions

    def _joined(self) -> list[Condition]:
        conditions = self._one()
        while self._next_is(","):
            self._at += 1
            conditions += self._one()
        return conditions

    def _one(self) -> list[Condition]:
        operator = self._take("word")
        self._mark("(")
        if operator == "and":
            conditions = self._joined()
        elif operator == "has":
            conditions = [Condition("has", self._take("word"), None)]
        else:
            field = self._take("word")
            self._mark(",")
            conditions = [Condition(operator, field, self._value())]
        self._mark(")")
        return conditions

    def _value(self) -> Any:
        if not self._next_is("["):
            return self._scalar()
        self._mark("[")
        values = [self._scalar()]
        while self._next_is(","):
            self._at += 1
            values.append(self._scalar())
        self._mark("]")
        return tuple(values)

    def _scalar(self) -> tuple[str, str]:
        kind, text = self._peek()
        if kind == "mark":
            raise _unreadable()
        self._at += 1
        return kind, re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if kind == "text" else text

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("mark", "")

    def _next_is(self, mark: str) -> bool:
        return self._peek() == ("mark", mark)

    def _take(self, kind: str) -> str:
        next_kind, text = self._peek()
        if next_kind != kind:
            raise _unreadable()
        self._at += 1
        return text

    def _mark(self, mark: str) -> None:
        if self._take("mark") != mark:
            raise _unreadable()


def _checked(condition: Condition, fields: Mapping[str, Field]) -> Condition:
    field = fields.get(condition.field)
    if field is None:
        allowed = ", ".join(sorted(fields))
        raise invalid(f"'{condition.field}' is not a filterable field.  Filterable fields are {allowed}", "filter")
    if condition.operator not in field.operators:
        allowed = ", ".join(field.operators)
        raise invalid(
            f"'{condition.operator}' is not an allowed filter operator for {condition.field}."
            f"  Allowed operators are {allowed}",
            "filter",
        )
    return Condition(condition.operator, condition.field, _converted(condition, field.kind))


def _converted(condition: Condition, kind: str) -> Any:
    value = condition.value
    if value is None:
        return None
    several = condition.operator in ("any", "contains-any")
    if several != isinstance(value[0], tuple):
        raise invalid(f"Invalid value for {condition.operator}({condition.field}).", "filter")
    return tuple(_scalar(each, kind) for each in value) if several else _scalar(value, kind)


def _scalar(value: tuple[str, str], kind: str) -> Any:
    token_kind, text = value
    if kind == "time":
        return seconds(text)
    if kind == "number":
        try:
            return int(text)
        except ValueError:
            raise invalid(f"Invalid number: {text}", "filter") from None
    if kind == "flag":
        if text.lower() not in ("true", "false"):
            raise invalid(f"Invalid boolean: {text}", "filter")
        return text.lower() == "true"
    if token_kind != "text":
        raise invalid(f"Invalid filter provided. Strings must be quoted: {text}", "filter")
    return text


def seconds(text: str) -> int:
    """Return the unix seconds of an ISO 8601 time without fractions. A time without an offset is in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(f"Invalid datetime: {text}", "filter") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def matches(condition: Condition, value: Any) -> bool:
    """Return whether the value meets the condition. None meets no condition."""
    wanted = condition.value
    if value is None:
        return False
    match condition.operator:
        case "equals":
            return bool(value == wanted)
        case "any":
            return value in wanted
        case "contains":
            return wanted.lower() in value.lower()
        case "starts-with":
            return bool(value.lower().startswith(wanted.lower()))
        case "ends-with":
            return bool(value.lower().endswith(wanted.lower()))
        case "greater-than":
            return bool(value > wanted)
        case "greater-or-equal":
            return bool(value >= wanted)
        case "less-than":
            return bool(value < wanted)
        case "less-or-equal":
            return bool(value <= wanted)
    raise AssertionError(condition.operator)


def span(conditions: list[Condition], *names: str) -> tuple[int, int]:
    """Return the half-open seconds [since, until) that the range conditions on these fields allow."""
    since, until = EARLIEST, LATEST
    for condition in conditions:
        if condition.field in names and condition.operator in RANGE:
            bound = condition.value + (condition.operator in ("greater-than", "less-or-equal"))
            if condition.operator.startswith("greater"):
                since = max(since, bound)
            else:
                until = min(until, bound)
    return since, until
