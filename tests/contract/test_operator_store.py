"""What operators look at and change, on any store."""

from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.enrolment import SqlEnrolment
from gridtokenx_cloud.adapters.store.overrides import SqlOverrides
from gridtokenx_cloud.adapters.store.records import SqlRecords
from gridtokenx_cloud.ports.admin import Enrolment
from gridtokenx_wire.claim import Claim, ClaimedMeter
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, TOKEN, Cloud, Gateway

NEW = Gateway(Ed25519PrivateKey.from_private_bytes(b"n" * 32))


@pytest.fixture
def cloud(new_store: Callable[[], Database]) -> Iterator[Cloud]:
    with build.cloud(new_store()) as made:
        yield made


def test_the_status_counts_what_waits(cloud: Cloud) -> None:
    cloud.take(GATEWAY.sends(build.slot(96, 0), build.slot(97, 400), build.slot(98, 90_000)))
    cloud.clock.at_ms += 5_000

    status = SqlRecords(cloud.database, cloud.clock).status()

    assert status == {
        "unminted_readings": 1,
        "unminted_wh": 400,
        "unminted_oldest_age_s": 5,
        "retries_waiting": 0,
        "retries_parked": 0,
        "held_readings": {"PowerExceeded": 1},
        "last_batches": [],
    }


def test_overrides_are_changed_whole_audited_and_chained(cloud: Cloud) -> None:
    overrides = SqlOverrides(cloud.database, cloud.clock, actor="desk")
    records = SqlRecords(cloud.database, cloud.clock)

    def refuse(texts: object) -> None:
        raise ValueError(texts)

    overrides.change({"batch_size": "60", "mint_threshold": "1"}, lambda texts: None)
    overrides.change({"batch_size": "70", "mint_threshold": None}, lambda texts: None)
    with pytest.raises(ValueError, match="80"):
        overrides.change({"batch_size": "80"}, refuse)

    assert overrides.values() == {"batch_size": "70"}
    newest = records.audit_page(None, 2)
    assert [entry["detail"] for entry in newest] == [
        {"old": "1", "new": None},
        {"old": "60", "new": "70"},
    ]
    assert records.broken_audit_entry() is None


def test_a_claim_accepted_twice_enrols_once_and_a_later_one_adds_a_meter(cloud: Cloud) -> None:
    def claim(*meter_ids: str) -> Claim:
        meters = tuple(
            ClaimedMeter(meter_id=name, profile="p", resolution_wh=1) for name in meter_ids
        )
        return Claim(gateway_id=NEW.gateway_id, token=TOKEN, meters=meters)

    wanted = Enrolment(user_id="bob", name="roof", rated_power_w=5_000, epoch_policy="first")
    deeds = SqlEnrolment(cloud.database, cloud.clock, actor="desk")

    added = [deeds.accept(claim(*names), wanted, TOKEN) for names in (("A",), ("A",), ("A", "B"))]

    assert added == [["A"], [], ["B"]]
    assert [row["name"] for row in cloud.registry.gateways()].count("roof") == 1
