"""Who asks too often waits; who guesses too often is turned away; others never notice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_cloud.adapters.limits import AccessLimits, client_address
from gridtokenx_cloud.throttle import Quota
from tests.support.build_cloud import FakeClock

PROXIES = ("127.0.0.1/32", "10.0.0.0/8")


def test_a_name_may_ask_so_often_at_once_and_then_at_the_pace_of_its_quota() -> None:
    quota = Quota(per_minute=3)

    at_once = [quota.take("a", 0) for _ in range(4)]

    assert at_once == [0, 0, 0, 20_000]
    assert quota.take("a", 19_999) == 1
    assert quota.take("a", 20_000) == 0
    assert quota.take("b", 0) == 0


def test_looking_how_long_to_wait_costs_nothing() -> None:
    quota = Quota(per_minute=1)

    looks = [quota.wait_ms("a", 0) for _ in range(3)]

    assert looks == [0, 0, 0]
    assert quota.take("a", 0) == 0
    assert quota.wait_ms("a", 0) == 60_000


@given(
    st.integers(1, 1_000_000),
    st.lists(st.integers(0, 30_000), min_size=1, max_size=60),
)
def test_no_minute_and_a_half_holds_more_than_two_and_a_half_quotas(
    per_minute: int, pauses: list[int]
) -> None:
    quota, now_ms, taken = Quota(per_minute), 0, 0
    for pause in pauses:
        now_ms += pause
        taken += quota.take("a", now_ms) == 0

    assert taken <= per_minute + per_minute * now_ms / 60_000 + 1


def test_a_clock_that_is_set_back_locks_nobody_out_for_longer_than_a_minute() -> None:
    quota = Quota(per_minute=2)
    quota.take("a", 3_600_000)

    assert quota.take("a", 0) <= 60_000


def test_a_flood_of_names_costs_bounded_memory_and_shuts_nobody_out() -> None:
    quota = Quota(per_minute=1)

    waits = [quota.take(str(number), 0) for number in range(25_000)]

    assert set(waits) == {0}
    assert len(quota._whole_at) <= 10_000


@pytest.mark.parametrize(
    ("peer", "forwarded", "counted"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        # Anybody can write the header: only our own proxies are believed.
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.1, 10.0.0.7", "198.51.100.1"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        # One subscriber has more addresses than could ever be counted.
        ("2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", None, "203.0.113.9"),
        ("", "198.51.100.1", ""),
    ],
)
def test_a_client_is_counted_by_its_address_and_cannot_choose_another(
    peer: str, forwarded: str | None, counted: str
) -> None:
    limits = AccessLimits(FakeClock(), 10, PROXIES)

    assert limits.address_of(peer, forwarded) == counted


def test_without_proxies_of_ours_no_header_is_believed() -> None:
    assert client_address("127.0.0.1", "198.51.100.1", ()) == "127.0.0.1"


def test_waits_are_told_in_whole_seconds_rounded_up() -> None:
    clock = FakeClock()
    limits = AccessLimits(clock, requests_per_minute=1, failures_per_minute=1)
    limits.request_wait_s("token")
    limits.failed("address")
    clock.at_ms += 1

    assert limits.request_wait_s("token") == 60
    assert limits.sign_in_wait_s("address") == 60
    assert limits.failed("address") == 60
    assert limits.sign_in_wait_s("elsewhere") == 0
