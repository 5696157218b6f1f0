"""The numbered pages of v1 contain the whole collection, in order."""

from typing import Any

import pytest

COLLECTIONS = ("metrics", "campaigns", "flows", "lists", "people/exclusions")


def size(server: Any, collection: str) -> int:
    account = server.account
    sizes = {
        "metrics": len(account.metrics),
        "campaigns": len(account.campaigns),
        "flows": len(account.flows),
        "lists": len(account.lists) + len(account.segments),
        "people/exclusions": sum(
            row.list_id is None
            for index, suppressions in account.people.suppressions.items()
            for row in suppressions
            if account.people.email(index)
        ),
    }
    return sizes[collection]


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize("count", [1, 7, 100])
def test_pages_contain_every_row_once(shared: Any, collection: str, count: int) -> None:
    """The rows are the same for every page size, and as many as the account has."""
    rows = list(shared.pages(f"v1/{collection}", count=count))
    assert len({str(row) for row in rows}) == len(rows) == size(shared, collection) > 7
    assert rows == list(shared.pages(f"v1/{collection}"))


@pytest.mark.parametrize(
    ("collection", "default", "maximum"),
    [
        ("metrics", 50, 100),
        ("campaigns", 50, 100),
        ("flows", 50, 100),
        ("lists", 50, 100),
        ("people/exclusions", 500, 5000),
    ],
)
def test_pages_have_a_default_and_a_maximum_size(shared: Any, collection: str, default: int, maximum: int) -> None:
    """A count above the maximum is refused."""
    total = size(shared, collection)
    page = shared.get(f"v1/{collection}")
    assert page["page_size"] == min(default, total)
    assert (page["page"], page["start"], page["end"], page["total"]) == (0, 0, min(default, total) - 1, total)
    assert shared.get(f"v1/{collection}", count=maximum)["page_size"] == min(maximum, total)
    assert shared.status(f"v1/{collection}", count=maximum + 1) == 400


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize(
    "parameters",
    [{"page": "-1"}, {"page": "one"}, {"count": "0"}, {"count": ""}],
    ids=["negative page", "page in letters", "count of nothing", "empty count"],
)
def test_invalid_page_numbers_are_refused(shared: Any, collection: str, parameters: dict[str, str]) -> None:
    """The message of the error names the parameter."""
    answer = shared.send("GET", f"/api/v1/{collection}", params=parameters)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(next(iter(parameters)))


def test_a_page_beyond_the_end_is_empty(shared: Any) -> None:
    """Its `end` makes a reader stop."""
    page = shared.get("v1/flows", page=9)
    assert (page["data"], page["page_size"]) == ([], 0)
    assert page["end"] >= page["total"] - 1


def test_an_empty_collection_has_one_empty_page(own: Any) -> None:
    for flow in list(own.account.flows):
        own.account.delete("flows", flow)
    assert list(own.pages("v1/flows")) == []


def test_metrics_are_sorted_by_name(shared: Any) -> None:
    names = [row["name"] for row in shared.pages("v1/metrics", count=10)]
    assert names == sorted(row.name for row in shared.account.metrics.values())


def test_campaigns_are_sorted_newest_first(shared: Any) -> None:
    created = [row["created"] for row in shared.pages("v1/campaigns")]
    assert created == sorted(created, reverse=True)


def test_flows_are_sorted_by_creation(shared: Any) -> None:
    """`sort` reverses the order. An unknown order is refused."""
    rows = list(shared.pages("v1/flows"))
    assert [row["created"] for row in rows] == sorted(row["created"] for row in rows)
    assert list(shared.pages("v1/flows", sort="desc")) == rows[::-1]
    assert shared.status("v1/flows", sort="name") == 400


@pytest.mark.parametrize("kind", ["metrics", "flows"])
def test_rows_equal_those_of_the_current_dialect(shared: Any, kind: str) -> None:
    """Metrics and flows have the same ids, names and times in both dialects."""
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


def test_lists_equal_those_of_the_account(shared: Any) -> None:
    """v1/lists returns lists and segments, v2/lists returns lists only, and v2/list/{id} adds the times of a list."""
    account = shared.account
    rows = {row["id"]: row for row in shared.pages("v1/lists")}
    assert {row_id: row["list_type"] for row_id, row in rows.items()} == {
        **dict.fromkeys(account.lists, "list"),
        **dict.fromkeys(account.segments, "segment"),
    }
    lists = shared.get("v2/lists")
    assert lists == [{"list_id": row.id, "list_name": row.name} for row in account.lists.values()]
    for row in lists:
        in_v1 = rows[row["list_id"]]
        times = {name: in_v1[name].replace(" ", "T") + "Z" for name in ("created", "updated")}
        assert shared.get(f"v2/list/{row['list_id']}") == {"list_name": row["list_name"], "folder_name": "", **times}
    assert shared.status(f"v2/list/{next(iter(account.segments))}") == 404
