"""A person whose address, number and street are in every field of an account that might contain them."""

from sandbox.launcher import Sandbox

SALT = "a secret of this test"
ADDRESS, PHONE, STREET = "Planted.Person@example.com", "+15557654321", "12 Planted Street"


def plant(box: Sandbox, when: int) -> None:
    """Add the person and their events, at a time in seconds, to the account."""
    odd = {f"friend {ADDRESS}": True, "Phone": int(PHONE[1:]), "also": [{"deep": f"call {PHONE}"}]}
    person = box.add_profile(
        email=ADDRESS,
        phone_number=PHONE,
        first_name="Planted",
        properties=odd,
        location={"address1": STREET, "latitude": 12.345678, "longitude": 1.5},
    )
    metrics = {metric["name"]: metric["id"] for metric in box.state()["metrics"]}
    event = {"metric": metrics["Placed Order"], "timestamp": when, "profile_id": person, "properties": odd}
    subscribed = {**event, "metric": metrics["Subscribed to List"], "properties": {"List": "Staff", **odd}}
    box.add_events(
        event,
        {**event, "properties": {"ship to": {"street": STREET}, "$event_id": ADDRESS, "at": 12.345678}},
        {**event, "omit": ["id"]},
        {**event, "raw": {"timestamp": f"as {ADDRESS} said"}, "id": "unreadable"},
        subscribed,
    )
