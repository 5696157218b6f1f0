"""The actions that a page of flows includes, and the messages that they send, turned into rows. Sends no requests."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from klaviyo_pg import rows
from klaviyo_pg.klaviyo.current import resources
from klaviyo_pg.klaviyo.lenient import boolean, elements, identifier, member, moment, related_id
from klaviyo_pg.klaviyo.properties import plain_text

_SENDS = "send-"  # begins the type of every action that sends a message


class Steps(NamedTuple):
    """The actions of a flow, and the messages that they send."""

    actions: list[rows.FlowAction]
    messages: list[rows.FlowMessage]


def of_flows(document: resources.FlowDocument, rejects: list[rows.Reject]) -> Mapping[str, Steps]:
    """Return the steps of the flows of a page, by the id of the flow. Other actions are rejected."""
    flows = {flow.id for flow in document.data}
    owners = {action: flow.id for flow in document.data for action in _references(flow)}
    steps: dict[str, Steps] = defaultdict(lambda: Steps([], []))
    for resource in document.included:
        if resource.type not in (None, "flow-action"):
            continue
        owner = owners.get(resource.id) or related_id(resource.relationships, "flow")
        if owner in flows:
            steps[owner].actions.append(action := _action(resource, owner))
            steps[owner].messages.extend(_messages(member(resource.attributes, "definition"), action))
        else:
            raw = msgspec.json.encode(resource).decode()
            rejects.append(rows.Reject(raw, "The action belongs to none of the flows on its page."))
    return steps


def _references(flow: resources.Flow) -> Iterator[str]:
    for each in elements(member(flow.relationships, "flow-actions", "data")):
        if isinstance(action_id := member(each, "id"), str):
            yield action_id


def _action(resource: resources.Resource, flow_id: str) -> rows.FlowAction:
    definition = member(resource.attributes, "definition")
    links = member(definition, "links")
    return rows.FlowAction(
        id=resource.id,
        flow_id=flow_id,
        action_type=plain_text(member(definition, "type")),
        status=plain_text(member(definition, "data", "status")),
        next_id=plain_text(member(links, "next")),
        next_if_true_id=plain_text(member(links, "next_if_true")),
        next_if_false_id=plain_text(member(links, "next_if_false")),
        definition=None if definition is None else msgspec.json.encode(definition).decode(),
        created=moment(member(resource.attributes, "created")),
        updated=moment(member(resource.attributes, "updated")),
    )


def _messages(definition: Any, action: rows.FlowAction) -> Iterator[rows.FlowMessage]:
    """Yield the messages that an action sends: one, or one for each variant of a test."""
    seen = set[str]()
    for sending in _sending(definition):
        message = _message(sending, action, is_variation=sending is not definition)
        if message.id not in seen:
            seen.add(message.id)
            yield message


def _sending(definition: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects within a definition that send a message, wherever tests nest them, the outermost first."""
    waiting = [definition]
    for value in waiting:
        if isinstance(value, dict):
            if identifier(member(value, "data", "message", "id")):
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _message(sending: Mapping[str, Any], action: rows.FlowAction, is_variation: bool) -> rows.FlowMessage:
    message = member(sending, "data", "message")

    def text(name: str) -> str | None:
        return plain_text(message.get(name))

    kind = plain_text(sending.get("type"))
    return rows.FlowMessage(
        id=message["id"],
        flow_id=action.flow_id,
        flow_action_id=action.id,
        channel=kind and kind.removeprefix(_SENDS).replace("-", "_"),
        name=text("name"),
        subject=text("subject_line") or text("title"),
        preview_text=text("preview_text"),
        body=text("body"),
        from_email=text("from_email"),
        from_name=text("from_label"),
        reply_to_email=text("reply_to_email"),
        template_id=text("template_id"),
        status=plain_text(member(sending, "data", "status")),
        is_transactional=boolean(message.get("transactional")),
        uses_smart_sending=boolean(message.get("smart_sending_enabled")),
        is_variation=is_variation,
        created=action.created,
        updated=action.updated,
    )
