"""The account in the legacy dialect, v1 and v2: the table of its endpoints, and what those of plain rows answer."""

from starlette.requests import Request

from sandbox import legacy_rows
from sandbox.account import Account
from sandbox.content import dump
from sandbox.errors import ApiError
from sandbox.legacy_dialect import V1, V2, not_found, query
from sandbox.legacy_export import LegacyExport
from sandbox.legacy_paging import paged
from sandbox.legacy_people import LegacyPeople
from sandbox.legacy_timelines import LegacyTimelines
from sandbox.limits import L
from sandbox.server import Box, Endpoint

# Klaviyo never published limits for these endpoints; L is what its lists and profiles have today.
_LIMIT = L


def legacy_endpoints(account: Account) -> list[Endpoint]:
    """Every endpoint of v1 and v2, and behind them whatever else is asked of v1 and v2."""
    return [*_v1(account), *_v2(account), *_others()]


def _v1(account: Account) -> list[Endpoint]:
    dimensions, people, timelines = _Dimensions(account), LegacyPeople(account), LegacyTimelines(account)
    answers = {
        "metrics": dimensions.metrics,
        "metrics/timeline": timelines.of_all,
        "metric/{id}/timeline": timelines.of_metric,
        "metric/{id}/export": LegacyExport(account).answer,
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
    dimensions, people = _Dimensions(account), LegacyPeople(account)
    answers = {
        "GET lists": dimensions.lists,
        "GET list/{id}": dimensions.list,
        "GET list/{id}/members": people.members,
        "POST list/{id}/get-members": people.members,
        "GET list/{id}/subscribe": people.subscribers,
        "POST list/{id}/get-list-subscriptions": people.subscribers,
        "GET list/{id}/exclusions/all": people.list_exclusions,
        "GET group/{id}/members/all": people.all_members,
        "GET people/search": people.search,
    }
    return [
        Endpoint(method, f"/api/v2/{path}", (), _LIMIT, answer, V2)
        for (method, path), answer in ((name.split(" "), answer) for name, answer in answers.items())
    ]


def _others() -> list[Endpoint]:
    return [
        Endpoint(method, f"/api/{version}/{{rest:path}}", (), _LIMIT, _nothing, dialect)
        for version, dialect in (("v1", V1), ("v2", V2))
        for method in ("GET", "POST", "PUT", "DELETE")
    ]


async def _nothing(box: Box, request: Request) -> bytes:
    raise ApiError(404, "not_found", f"No endpoint answers {request.method} {request.url.path}.")


class _Dimensions:
    """Metrics, campaigns, flows and lists."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def metrics(self, box: Box, request: Request) -> bytes:
        rows = sorted(self._account.metrics.values(), key=lambda row: (row.name, row.id))
        return paged(rows, query(request), legacy_rows.metric)

    async def campaigns(self, box: Box, request: Request) -> bytes:
        rows = sorted(self._account.campaigns.values(), key=lambda row: (row.created_at, row.id), reverse=True)
        groups = self._account.lists | self._account.segments
        return paged(rows, query(request), lambda row: legacy_rows.campaign(row, groups))

    async def flows(self, box: Box, request: Request) -> bytes:
        asked = query(request)
        rows = sorted(
            self._account.flows.values(),
            key=lambda row: (row.created, row.id),
            reverse=asked.word("sort", ("asc", "desc"), "asc") == "desc",
        )
        return paged(rows, asked, legacy_rows.flow)

    async def lists_and_segments(self, box: Box, request: Request) -> bytes:
        rows = [*self._account.lists.values(), *self._account.segments.values()]
        return paged(rows, query(request), legacy_rows.group)

    async def lists(self, box: Box, request: Request) -> bytes:
        return dump([{"list_id": row.id, "list_name": row.name} for row in self._account.lists.values()])

    async def list(self, box: Box, request: Request) -> bytes:
        row = self._account.lists.get(request.path_params["id"])
        if row is None:
            raise not_found("list", request.path_params["id"])
        return dump(
            {
                "list_name": row.name,
                "folder_name": "",
                "created": legacy_rows.zulu(row.created),
                "updated": legacy_rows.zulu(row.updated),
            }
        )
