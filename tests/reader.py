"""A minimal client that reads a sandbox account in either dialect, without retries or validation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import requests

from sandbox.launcher import Sandbox

LONG_AGO = "1000000000"
REVISION = "2026-07-15"


@dataclass(frozen=True)
class Reader:
    """A client of one sandbox."""

    box: Sandbox
    timeout: float = 120
    key: str | None = None  # by default the key that every sandbox accepts

    def current(self, path: str, parameters: dict[str, Any] | None = None) -> requests.Response:
        """Send a GET in the current dialect. `path` is a path below /api/ or a link."""
        url = path if path.startswith("http") else f"{self.box.url}/api/{path}"
        headers = {"Authorization": f"Klaviyo-API-Key {self.key or self.box.api_key}", "revision": REVISION}
        return requests.get(url, parameters, headers=headers, timeout=self.timeout, allow_redirects=False)

    def legacy(self, path: str, parameters: dict[str, Any] | None = None) -> requests.Response:
        """Send a GET in the legacy dialect. `path` is below /api/."""
        query = {"api_key": self.box.api_key, **(parameters or {})}
        url = f"{self.box.url}/api/{path}"
        return requests.get(url, query, timeout=self.timeout, allow_redirects=False)

    def get(self, path: str, **parameters: Any) -> requests.Response:
        """Send a GET in the current dialect. The argument page__size is the parameter page[size]."""
        query = {name.replace("__", "[") + "]" * ("__" in name): value for name, value in parameters.items()}
        return self.current(path, query)

    def rows(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of all pages in the current dialect."""
        answer, rows = self.get(path, **parameters), list[dict[str, Any]]()
        while True:
            assert answer.status_code == 200, answer.text
            rows += answer.json()["data"]
            following = answer.json()["links"]["next"]
            if following is None:
                return rows
            answer = self.current(following)

    def ids(self, path: str, **parameters: Any) -> list[str]:
        """Return the ids of the rows of all pages in the current dialect."""
        return [row["id"] for row in self.rows(path, **parameters)]

    def timeline(self, path: str = "v1/metrics/timeline") -> Iterator[dict[str, Any]]:
        """Yield all events of a timeline in the legacy dialect."""
        following: str | None = LONG_AGO
        while following is not None:
            page = self.legacy(path, {"since": following, "sort": "asc", "count": "100"}).json()
            yield from page["data"]
            following = page["next"]

    def first_page(self, path: str) -> list[dict[str, Any]]:
        """Return the first 100 rows of a v1 collection."""
        return list(self.legacy(path, {"count": "100"}).json()["data"])

    def counts(self, metric_id: str, day: str, after: str, interval: str = "day") -> list[int]:
        """Return the counts of a metric in the current dialect, from `day` up to but not including `after`."""
        attributes = {
            "metric_id": metric_id,
            "measurements": ["count"],
            "interval": interval,
            "filter": [f"greater-or-equal(datetime,{day})", f"less-than(datetime,{after})"],
        }
        answer = requests.post(
            f"{self.box.url}/api/metric-aggregates",
            json={"data": {"type": "metric-aggregate", "attributes": attributes}},
            headers={"Authorization": f"Klaviyo-API-Key {self.box.api_key}", "revision": REVISION},
            timeout=self.timeout,
        )
        return list(answer.json()["data"]["attributes"]["data"][0]["measurements"]["count"])

    def legacy_counts(self, metric_id: str, day: str, after: str) -> list[int]:
        """Return the counts of a metric in the legacy dialect, from `day` up to but not including `after`."""
        query = {"start_date": day, "end_date": after, "unit": "day", "measurement": "count"}
        answer = self.legacy(f"v1/metric/{metric_id}/export", query).json()
        return [interval["values"][0] for interval in answer["results"][0]["data"]]


def until_refused(send: Callable[[], requests.Response]) -> list[requests.Response]:
    """Send requests until one is refused; return all answers. On a slow machine it takes a limit per minute."""
    answers = [send()]
    while answers[-1].status_code == 200 and len(answers) < 100:
        answers.append(send())
    return answers
