"""The answers of v1 and v2 about metrics, campaigns, flows and lists."""

from starlette.requests import Request

from sandbox.account import Account
from sandbox.api.endpoint import Context
from sandbox.encoding import dump
from sandbox.legacy import rows
from sandbox.legacy.dialect import not_found, query
from sandbox.legacy.paging import paged


class Dimensions:
    """The endpoints of everything except people and events."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def metrics(self, context: Context, request: Request) -> bytes:
        metrics = sorted(self._account.metrics.values(), key=lambda row: (row.name, row.id))
        return paged(metrics, query(request), rows.metric)

    async def campaigns(self, context: Context, request: Request) -> bytes:
        campaigns = sorted(self._account.campaigns.values(), key=lambda row: (row.created_at, row.id), reverse=True)
        groups = self._account.lists | self._account.segments
        return paged(campaigns, query(request), lambda row: rows.campaign(row, groups))

    async def flows(self, context: Context, request: Request) -> bytes:
        parameters = query(request)
        flows = sorted(
            self._account.flows.values(),
            key=lambda row: (row.created, row.id),
            reverse=parameters.choice("sort", ("asc", "desc"), "asc") == "desc",
        )
        return paged(flows, parameters, rows.flow)

    async def lists_and_segments(self, context: Context, request: Request) -> bytes:
        groups = [*self._account.lists.values(), *self._account.segments.values()]
        return paged(groups, query(request), rows.group)

    async def lists(self, context: Context, request: Request) -> bytes:
        return dump([{"list_id": row.id, "list_name": row.name} for row in self._account.lists.values()])

    async def list(self, context: Context, request: Request) -> bytes:
        row = self._account.lists.get(request.path_params["id"])
        if row is None:
            raise not_found("list", request.path_params["id"])
        return dump(
            {
                "list_name": row.name,
                "folder_name": "",
                "created": rows.iso_time(row.created),
                "updated": rows.iso_time(row.updated),
            }
        )
