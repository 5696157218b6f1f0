"""The table of all endpoints of v1 and v2."""

from starlette.requests import Request

from sandbox.account import Account
from sandbox.api.endpoint import Answer, Context, Endpoint
from sandbox.api.errors import ApiError
from sandbox.api.limits import L
from sandbox.legacy.dialect import V1, V2
from sandbox.legacy.dimensions import Dimensions
from sandbox.legacy.export import Export
from sandbox.legacy.people import PeopleEndpoints
from sandbox.legacy.timelines import Timelines

# Klaviyo never published limits for these endpoints; L is the current limit of lists and profiles.
_LIMIT = L


def legacy_endpoints(account: Account) -> list[Endpoint]:
    """Return every endpoint of v1 and v2, followed by those that answer 404 to any other path of v1 and v2."""
    return [*_v1(account), *_v2(account), *_fallbacks()]


def _v1(account: Account) -> list[Endpoint]:
    dimensions, people, timelines = Dimensions(account), PeopleEndpoints(account), Timelines(account)
    answers: dict[str, Answer] = {
        "metrics": dimensions.metrics,
        "metrics/timeline": timelines.of_all,
        "metric/{id}/timeline": timelines.of_metric,
        "metric/{id}/export": Export(account).answer,
        "campaigns": dimensions.campaigns,
        "flows": dimensions.flows,
        "lists": dimensions.lists_and_segments,
        "people/exclusions": people.exclusions,
        "person/{id}": people.person,
        "person/{id}/metrics/timeline": timelines.of_person,
        "person/{id}/metric/{metric}/timeline": timelines.of_person_and_metric,
    }
    return [Endpoint("GET", f"/api/v1/{path}", (), _LIMIT, answer, V1) for path, answer in answers.items()]


def _v2(account: Account) -> list[Endpoint]:
    dimensions, people = Dimensions(account), PeopleEndpoints(account)
    answers: dict[tuple[str, str], Answer] = {
        ("GET", "lists"): dimensions.lists,
        ("GET", "list/{id}"): dimensions.list,
        ("GET", "list/{id}/members"): people.members,
        ("POST", "list/{id}/get-members"): people.members,
        ("GET", "list/{id}/subscribe"): people.subscribers,
        ("POST", "list/{id}/get-list-subscriptions"): people.subscribers,
        ("GET", "list/{id}/exclusions/all"): people.list_exclusions,
        ("GET", "group/{id}/members/all"): people.all_members,
        ("GET", "people/search"): people.search,
    }
    return [Endpoint(method, f"/api/v2/{path}", (), _LIMIT, answer, V2) for (method, path), answer in answers.items()]


def _fallbacks() -> list[Endpoint]:
    return [
        Endpoint(method, f"/api/{version}/{{rest:path}}", (), _LIMIT, _no_endpoint, dialect)
        for version, dialect in (("v1", V1), ("v2", V2))
        for method in ("GET", "POST", "PUT", "DELETE")
    ]


async def _no_endpoint(context: Context, request: Request) -> bytes:
    raise ApiError(404, "not_found", f"No endpoint answers {request.method} {request.url.path}.")
