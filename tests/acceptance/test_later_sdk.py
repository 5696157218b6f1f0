"""Klaviyo's own client for revision 2026-10-15 reads the campaigns of the sandbox: all are valid for its models."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.launcher import running
from tests.reader import Reader

ROOT = Path(__file__).parents[2]
CLIENT = "klaviyo-api==25.0.0"
EMAIL = "equals(messages.channel,'email')"


@pytest.mark.slow
def test_the_later_client_reads_all_campaigns(tmp_path: Path) -> None:
    """It is installed into a folder, since the other tests use the client for the earlier revision."""
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), CLIENT]
    subprocess.run([sys.executable, *install], check=True, timeout=120)
    with running(members=20, events=200) as box:
        program = [sys.executable, str(ROOT / "tests" / "later_sdk.py"), box.url, box.api_key]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        ran = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
        count, of_email = box.state()["campaigns"], Reader(box).rows("campaigns", filter=EMAIL)
    revision, campaigns, messages = json.loads(ran.stdout)
    assert revision == "2026-10-15"
    assert len(campaigns) == len({row_id for row_id, *_ in campaigns}) == count
    assert {is_archived for _, is_archived, _ in campaigns} == {True, False}
    assert sorted(campaign_id for _, campaign_id, _ in messages) == sorted(row_id for row_id, *_ in campaigns)
    assert {channel for _, _, channels in messages for channel in channels} == {"email", "sms", "push"}
    assert max(len(channels) for *_, channels in messages) == 2
    lists = {row_id: included for row_id, _, included in campaigns}
    assert all(lists[row["id"]] == row["attributes"]["audiences"]["included"] for row in of_email)
