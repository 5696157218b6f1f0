"""The build steps of prefect.yaml, and the error of a deployed run without a key."""

import logging
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect_sqlalchemy import SqlAlchemyConnector

from klaviyo_pg.errors import BadKey, BadSettings
from tasks import blocks, deploying, flow_settings
from tasks.blocks import KlaviyoCredentials
from tests.driver import ROOT

PROJECT: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())


def _step() -> dict[str, str]:
    (step,) = [each["tasks.deploying.blocks_from_environment"] for each in PROJECT["build"][1:]]
    return {name: value for name, value in step.items() if name != "id"}


@pytest.mark.parametrize("flow", ["daily", "reconcile", "backfill"])
def test_deployments_name_the_blocks_of_the_environment(flow: str) -> None:
    """So do their schedules, which have no separate parameters."""
    (deployment,) = [each for each in PROJECT["deployments"] if each["name"] == flow]
    assert (
        deployment["parameters"].items()
        >= {
            "klaviyo": "{{ blocks.klaviyo }}",
            "warehouse": "{{ blocks.warehouse }}",
        }.items()
    )
    assert not [each for each in deployment["schedules"] or () if "parameters" in each]


def test_blocks_that_the_environment_names_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(deploying, "_deployed_blocks", dict)
    monkeypatch.setattr(deploying, "load_block", lambda kind, name: loaded.append(name))
    monkeypatch.setenv("KLAVIYO_BLOCK", "shop-de")
    monkeypatch.delenv("WAREHOUSE_BLOCK", raising=False)
    assert deploying.blocks_from_environment(**_step()) == {"klaviyo": "shop-de", "warehouse": None}
    assert loaded == ["shop-de"]


def test_a_missing_block_is_named_when_deploying(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(kind: Any, name: str) -> None:
        raise BadSettings(f"There is no {kind.get_block_type_name()} block named {name}.")

    monkeypatch.setattr(deploying, "load_block", missing)
    monkeypatch.setattr(deploying, "_deployed_blocks", dict)
    monkeypatch.setenv("KLAVIYO_BLOCK", "shop-fr")
    with pytest.raises(SystemExit) as caught:
        deploying.blocks_from_environment(**_step())
    assert caught.value.code == (
        "There is no Klaviyo Credentials block named shop-fr. Save it with klaviyo-pg save-blocks, or change "
        "KLAVIYO_BLOCK."
    )


@pytest.mark.parametrize("entrypoint", [each["entrypoint"] for each in PROJECT["deployments"]])
def test_the_run_form_offers_the_blocks(entrypoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's user interface shows a picker for a parameter with the slug of a type of blocks."""
    monkeypatch.chdir(ROOT)
    schema = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False).parameters
    kinds = {"klaviyo": KlaviyoCredentials, "warehouse": SqlAlchemyConnector}
    for name, kind in kinds.items():
        picked, *others = schema.properties[name]["anyOf"]
        definition = schema.definitions[picked["$ref"].removeprefix("#/definitions/")]
        assert definition["block_type_slug"] == kind.get_block_type_slug()
        assert others == [{"type": "string"}, {"type": "null"}]


def test_a_block_that_was_picked_is_loaded_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def load(kind: type[KlaviyoCredentials], reference: object) -> KlaviyoCredentials:
        asked.append(reference)
        return KlaviyoCredentials(api_key="pk_picked", integration="shop-de")

    monkeypatch.setattr(KlaviyoCredentials, "load_from_ref", classmethod(load))
    picked = {"$ref": {"block_document_id": "1"}}
    assert blocks.load_block(KlaviyoCredentials, picked).integration == "shop-de"
    assert asked == [{"block_document_id": "1"}]


def test_a_block_that_was_picked_and_deleted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(kind: type[KlaviyoCredentials], reference: object) -> None:
        raise ValueError("Unable to find block document with ID 1")

    monkeypatch.setattr(KlaviyoCredentials, "load_from_ref", classmethod(load))
    sentence = r"^The Klaviyo Credentials block picked for this run no longer exists\.$"
    with pytest.raises(BadSettings, match=sentence):
        blocks.load_block(KlaviyoCredentials, {"$ref": {"block_document_id": "1"}})


def test_a_deployed_run_without_a_key_says_how_to_name_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_settings, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.delenv("KLAVIYO_API_KEY", raising=False)
    monkeypatch.setattr(flow_settings, "is_deployed", lambda: True)
    with pytest.raises(BadKey, match=r"^No API key\. The run names no Klaviyo Credentials block, .*KLAVIYO_BLOCK=NAME"):
        flow_settings.settings_from(None, None, database_url="postgresql://localhost/none")
