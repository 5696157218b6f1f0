"""People who were erased are removed before frames are stored."""

import hashlib
from collections.abc import Sequence

import polars as pl
import pytest

from klaviyo_pg.catalogue import Load, loads
from transforms.erased import ErasedPeople, unclaimed_exclusions, without, without_exclusions

ACCOUNT = "account-1"
ADDRESS = "Ann@example.com"


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


ERASED = md5("p1")
PEOPLE = ErasedPeople(ACCOUNT, {ERASED}, {md5(f"{ACCOUNT}:ann@example.com")})


def one(stored: pl.DataFrame, load: Load, erased: ErasedPeople = PEOPLE) -> pl.DataFrame:
    """Return the only frame of a batch without the people who were erased."""
    [(_, frame)] = without([(load, stored)], erased)
    return frame


def frame(load: Load, **columns: Sequence[str | None]) -> pl.DataFrame:
    values = pl.DataFrame(columns)
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in load.schema.items() if name not in columns]
    return values.with_columns(missing).select(*load.schema)


def test_events_stay_without_the_erased_person() -> None:
    """Events of other people and events without a person are unchanged."""
    load = loads.EVENTS["opens"]
    stored = frame(load, id=["a1", "b1", "c1"], member_key=[ERASED, "k", None], email=["a@b.c", "d@e.f", None])
    stored = stored.with_columns(properties=pl.lit("{}"), email_domain=pl.lit("b.c"), is_machine_open=pl.lit(True))
    left = one(stored, load)
    assert left.select("id", "member_key", "email", "email_domain", "properties", "is_machine_open").rows() == [
        ("a1", None, None, None, None, True),
        ("b1", "k", "d@e.f", "b.c", "{}", True),
        ("c1", None, None, "b.c", "{}", True),
    ]
    assert left.schema == stored.schema


@pytest.mark.parametrize(
    ("load", "column", "erased", "other"),
    [
        pytest.param(loads.MEMBERS, "member_key", ERASED, "k", id="members"),
        pytest.param(loads.MEMBER_ATTRIBUTES, "member_key", ERASED, "k", id="attributes"),
        pytest.param(loads.STG_MEMBER_LISTS, "member_id", "p1", "p2", id="lists"),
        pytest.param(loads.SUBSCRIPTION_CHANGES, "member_id", "p1", "p2", id="changes"),
        pytest.param(loads.SWEPT_MEMBERS, "member_id", "p1", "p2", id="sweeps"),
    ],
)
def test_rows_of_an_erased_person_are_removed(load: Load, column: str, erased: str, other: str) -> None:
    """The row can refer to the person by id or by key."""
    rows = frame(load, **{column: [erased, other]})
    assert one(rows, load).get_column(column).to_list() == [other]
    assert one(rows, load, ErasedPeople(ACCOUNT)) is rows


def test_a_merge_into_an_erased_person_does_not_name_that_person() -> None:
    """The profile that was merged is erased as well, by its ID. What an erased person was merged into is forgotten."""
    merges = frame(
        loads.PROFILE_MERGES,
        old_member_key=["k2", "k3", ERASED],
        old_member_id=["p2", "p3", "p1"],
        new_member_key=[ERASED, "k4", "k4"],
        new_member_id=["p1", "p4", "p4"],
    )
    assert one(merges, loads.PROFILE_MERGES).select("old_member_id", "new_member_id").rows() == [
        ("p2", None),
        ("p3", "p4"),
    ]


def test_rows_without_a_person_stay() -> None:
    lists = frame(loads.LISTS, id=["L1"])
    assert one(lists, loads.LISTS) is lists


def test_ids_and_currencies_of_their_events_name_no_one() -> None:
    """An ID that is an address or a name becomes its digest. The key follows its recipe, as in every run."""
    load = loads.EVENTS["sends"]
    ids = [ADDRESS, "3qvdbYg3", "Ann", ADDRESS]
    stored = frame(load, id=ids, key=["1", "2", "3", "4"], member_key=[ERASED] * 3 + ["k"])
    stored = stored.with_columns(value_currency=pl.Series(["Ann", "eur", None, "Ann"]))
    stored = stored.with_columns(variation=pl.Series(["Ann Smith", "v1", None, "Ann Smith"]))
    left = one(stored, load)
    assert left.get_column("variation").to_list() == [None, "v1", None, "Ann Smith"]
    digests = [md5(each) for each in ids]
    assert left.select("id", "key", "value_currency").rows() == [
        (digests[0], md5(f"Klaviyo:{ACCOUNT}:{digests[0]}"), None),
        ("3qvdbYg3", "2", "eur"),
        (digests[2], md5(f"Klaviyo:{ACCOUNT}:{digests[2]}"), None),
        (ADDRESS, "4", "Ann"),
    ]


def test_flow_campaigns_take_their_names_from_events_of_others() -> None:
    """The latest event of someone else counts. A campaign without other events stays, without names."""
    sends, flow = loads.EVENTS["sends"], loads.FLOW_CAMPAIGNS
    rows = [
        ("both", "k", "Bob", 1),
        ("both", ERASED, "Ann", 2),
        ("hers", ERASED, "Ann", 3),
        (ADDRESS, ERASED, "Ann", 4),
    ]
    sent = frame(
        sends,
        id=[f"e{at}" for *_, at in rows],
        campaign_key=[md5(message) for message, *_ in rows],
        automation_key=["flow"] * 4,
        member_key=[person for _, person, *_ in rows],
        properties=[f'{{"Campaign Name": "", "Subject": "{name}"}}' for *_, name, _ in rows],
    ).with_columns(event_at=pl.Series([at for *_, at in rows]).cast(pl.Datetime("us", "UTC")))
    messages = ["both", "hers", ADDRESS, "his"]
    campaigns = frame(flow, id=messages, campaign_key=[md5(each) for each in messages], subject=["Ann"] * 3 + ["Bob"])
    [_, (_, left)] = without([(sends, sent), (flow, campaigns)], PEOPLE)
    assert left.select("id", "name", "subject").sort("id").rows() == [
        ("both", None, "Bob"),
        ("hers", None, None),
        ("his", None, "Bob"),
    ]
    assert left.schema == campaigns.schema


def test_exclusions_without_a_profile_are_recognised_by_address() -> None:
    load = loads.MEMBER_EXCLUSIONS
    stored = frame(load, email=[ADDRESS, "bob@example.com", None, ADDRESS], member_id=[None, None, None, "p9"])
    assert unclaimed_exclusions([(load, stored)], PEOPLE) == {"ann@example.com"}
    [(_, left)] = without_exclusions([(load, stored)], {"ann@example.com"})
    assert left.select("email", "member_id").rows() == [("bob@example.com", None), (None, None), (ADDRESS, "p9")]


@pytest.mark.parametrize(
    ("text", "is_theirs"),
    [
        pytest.param('{"id":"p1"}', True, id="the profile"),
        pytest.param(f'{{"member_key":"{ERASED}"}}', True, id="the key"),
        pytest.param('{"note":"as ANN@example.com, said"}', True, id="the address"),
        pytest.param('{"note":"https://shop.example/?a=ann%40example.com&b=1"}', True, id="a link"),
        pytest.param('{"id":"p10","note":"joann@example.com"}', False, id="others"),
    ],
)
def test_texts_about_them_are_recognised(text: str, is_theirs: bool) -> None:
    assert PEOPLE.is_in(text) == is_theirs
