"""The actions of a flow, which follow from its messages: delays, messages, and a split or a test in longer flows."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sandbox.account.ids import token
from sandbox.account.model import Flow, FlowMessage
from sandbox.hashing import stable_hash

_TO_SPLIT, _TO_TEST = 3, 4  # messages of a flow with a split, and of one whose last message is tested


class FlowAction(NamedTuple):
    """A step of a flow."""

    id: str
    flow_id: str
    definition: dict[str, Any]


def actions_of(flow: Flow) -> list[FlowAction]:
    """Return the actions of a flow in order."""
    steps = list(_steps(flow))
    ids = [_id(flow, at) for at in range(len(steps))]
    return [
        FlowAction(row_id, flow.id, {"id": row_id, "type": kind, "data": data, "links": _links(kind, following)})
        for row_id, (kind, data), following in zip(ids, steps, [*ids[1:], None], strict=True)
    ]


def _id(flow: Flow, at: int) -> str:
    return str(100_000_000 + stable_hash("flow-action", flow.id, at) % 10_000_000_000)


def _links(kind: str, following: str | None) -> dict[str, str | None]:
    return {"next_if_true": following, "next_if_false": None} if kind == "conditional-split" else {"next": following}


def _steps(flow: Flow) -> Iterator[tuple[str, dict[str, Any]]]:
    last = len(flow.messages) - 1
    for at, message in enumerate(flow.messages):
        yield "time-delay", {"unit": "hours", "value": 2 + at, "secondary_value": 0, "timezone": "profile"}
        if at == last and len(flow.messages) >= _TO_SPLIT:
            condition = {"type": "profile-property", "property": "email", "filter": {"value": "vip@example.com"}}
            yield "conditional-split", {"profile_filter": {"condition_groups": [{"conditions": [condition]}]}}
        if at == last and len(flow.messages) >= _TO_TEST:
            yield "content-experiment", _experiment(flow, message)
        else:
            yield "send-email", _sending(flow, message)
    if len(flow.messages) == 1:
        text = {"id": token("flow-text", flow.id), "name": "A text", "body": "Come back\nReply STOP to stop"}
        yield "send-sms", {"message": text, "status": flow.status}


def _sending(flow: Flow, message: FlowMessage) -> dict[str, Any]:
    email = {
        "from_email": "news@example.com",
        "from_label": 'The "Shop" — Zoë',
        "reply_to_email": None,
        "cc_email": None,
        "bcc_email": None,
        "subject_line": message.subject,
        "preview_text": "",
        "template_id": token("template", message.id),
        "smart_sending_enabled": True,
        "transactional": flow.trigger_type == "Price Drop",
        "add_tracking_params": False,
        "custom_tracking_params": None,
        "additional_filters": None,
        "name": message.name,
        "id": message.id,
    }
    return {"message": email, "status": flow.status}


def _experiment(flow: Flow, message: FlowMessage) -> dict[str, Any]:
    """Return a test of a message: the message itself, and a variant of it."""
    variant = FlowMessage(token("flow-variant", message.id), f"{message.name} B", f"{message.subject}!")
    return {
        "main_action": {"type": "send-email", "data": _sending(flow, message), "links": {"next": None}},
        "current_experiment": {
            "name": f"Test of {message.name}",
            "variations": [{"type": "send-email", "data": _sending(flow, variant), "links": {"next": None}}],
        },
        "experiment_status": "live",
    }
