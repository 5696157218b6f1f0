"""Numbered pages of v1: together they are the whole collection, in order."""

from typing import Any

import pytest

COLLECTIONS = ("metrics", "campaigns", "flows", "lists", "people/exclusions")


def size(asked: Any, collection: str) -> int:
    account = asked.box.account
    sizes = {
        "metrics": len(account.metrics),
        "campaigns": len(account.campaigns),
        "flows": len(account.flows),
        "lists": len(account.lists) + len(account.segments),
        "people/exclusions": sum(
            found.list_id is None
            for index, known in account.people.suppressions.items()
            for found in known
            if account.people.email(index)
        ),
    }
    return sizes[collection]


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize("count", [1, 7, 100])
def test_pages_cover_everything(shared: Any, collection: str, count: int) -> None:
    """Whatever their size, the pages hold every row once, as many as the account has."""
    rows = list(shared.pages(f"v1/{collection}", count=count))
    assert len({str(row) for row in rows}) == len(rows) == size(shared, collection) > 7
    assert rows == list(shared.pages(f"v1/{collection}"))


@pytest.mark.parametrize(
    ("collection", "default", "most"),
    [
        ("metrics", 50, 100),
        ("campaigns", 50, 100),
        ("flows", 50, 100),
        ("lists", 50, 100),
        ("people/exclusions", 500, 5000),
    ],
)
def test_sizes(shared: Any, collection: str, default: int, most: int) -> None:
    """A page has its default size unless said otherwise; more than the most is refused."""
    total = size(shared, collection)
    page = shared.get(f"v1/{collection}")
    assert page["page_size"] == min(default, total)
    assert (page["page"], page["start"], page["end"], page["total"]) == (0, 0, min(default, total) - 1, total)
    assert shared.get(f"v1/{collection}", count=most)["page_size"] == min(most, total)
    assert shared.status(f"v1/{collection}", count=most + 1) == 400


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize(
    "parameters",
    [{"page": "-1"}, {"page": "one"}, {"count": "0"}, {"count": ""}],
    ids=["negative page", "page in letters", "count of nothing", "empty count"],
)
def test_wrong_numbers(shared: Any, collection: str, parameters: dict[str, str]) -> None:
    """Numbers that make no page are refused in v1's words."""
    answer = shared.send("GET", f"/api/v1/{collection}", params=parameters)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(next(iter(parameters)))


def test_beyond_the_end(shared: Any) -> None:
    """A page beyond the end is empty, and tells readers to stop."""
    page = shared.get("v1/flows", page=9)
    assert (page["data"], page["page_size"]) == ([], 0)
    assert page["end"] >= page["total"] - 1


def test_empty_collection(own: Any) -> None:
    """A collection without rows has one empty page."""
    for flow in list(own.box.account.flows):
        own.box.account.delete("flows", flow)
    assert list(own.pages("v1/flows")) == []


def test_metrics_by_name(shared: Any) -> None:
    """Metrics come sorted by name."""
    names = [row["name"] for row in shared.pages("v1/metrics", count=10)]
    assert names == sorted(row.name for row in shared.box.account.metrics.values())


def test_newest_campaigns_first(shared: Any) -> None:
    """Campaigns come newest first."""
    created = [row["created"] for row in shared.pages("v1/campaigns")]
    assert created == sorted(created, reverse=True)


def test_flows_sort(shared: Any) -> None:
    """Flows come by creation, in the order asked for."""
    rows = list(shared.pages("v1/flows"))
    assert [row["created"] for row in rows] == sorted(row["created"] for row in rows)
    assert list(shared.pages("v1/flows", sort="desc")) == rows[::-1]
    assert shared.status("v1/flows", sort="name") == 400


@pytest.mark.parametrize("kind", ["metrics", "flows"])
def test_same_ids_as_current(shared: Any, kind: str) -> None:
    """Metrics and flows have the ids, names and times that they have in the current dialect."""
    rows, path = {}, f"{kind}"
    filters = ["equals(archived,false)", "equals(archived,true)"] if kind == "flows" else [None]
    for filtered in filters:
        path = f"{kind}" if filtered is None else f"{kind}?filter={filtered}"
        while path:
            page = shared.current(path)
            for row in page["data"]:
                times = (row["attributes"][name].replace("T", " ").split("+")[0] for name in ("created", "updated"))
                rows[row["id"]] = (row["attributes"]["name"], *times)
            path = (page["links"]["next"] or "").partition("/api/")[2]
    legacy = {row["id"]: (row["name"], row["created"], row["updated"]) for row in shared.pages(f"v1/{kind}")}
    assert rows == legacy


def test_same_lists_as_current(shared: Any) -> None:
    """v1/lists has lists and segments, v2/lists only lists, and v2/list/{id} the rest of what there is to say."""
    account = shared.box.account
    rows = {row["id"]: row for row in shared.pages("v1/lists")}
    assert {row_id: row["list_type"] for row_id, row in rows.items()} == {
        **dict.fromkeys(account.lists, "list"),
        **dict.fromkeys(account.segments, "segment"),
    }
    found = shared.get("v2/lists")
    assert found == [{"list_id": row.id, "list_name": row.name} for row in account.lists.values()]
    for row in found:
        one = shared.get(f"v2/list/{row['list_id']}")
        known = rows[row["list_id"]]
        times = {name: known[name].replace(" ", "T") + "Z" for name in ("created", "updated")}
        assert one == {"list_name": row["list_name"], "folder_name": "", **times}
    assert shared.status(f"v2/list/{next(iter(account.segments))}") == 404
