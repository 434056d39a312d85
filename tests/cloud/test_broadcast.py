"""The fan-out without sockets: what each connection gets, in which order, and when it is cut."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_cloud.broadcast import Broadcast, BroadcastLimits
from gridtokenx_cloud.event_protocol import (
    EVERYTHING,
    CloseCode,
    Connect,
    EventSubscription,
    ProtocolFault,
    ResumePoint,
    SetFilter,
    parse_message,
)
from gridtokenx_cloud.event_queue import EventQueue, QueuedEvent, TokenBucket
from gridtokenx_cloud.events import ADMIN_STREAM, EVENT_TYPES, user_stream
from gridtokenx_cloud.ports.events import Principal
from tests.support import build_events as build
from tests.support.build_cloud import FakeClock
from tests.support.fake_events import FakeEventStore, FakeOutlet

ANNA = user_stream("anna")
ALL = Connect(ticket=None)


class World:
    """A hub over a store in memory; everybody connects in one line."""

    def __init__(self, limits: BroadcastLimits | None = None) -> None:
        self.store = FakeEventStore()
        self.clock = FakeClock()
        self.hub = Broadcast(self.store, self.clock, limits)
        self.hub.pump(0.0)

    def join(
        self,
        who: Principal | None = None,
        request: Connect = ALL,
        outlet: FakeOutlet | None = None,
    ) -> tuple[str, FakeOutlet]:
        outlet = outlet or FakeOutlet()
        who = who or build.owner()
        self.hub.prepare(who)
        conn = self.hub.admit(who, outlet, request, 0.0)
        return conn, outlet

    def commit(self, count: int, stream: str = ANNA) -> None:
        for _ in range(count):
            self.store.append(stream, build.slot())


def resume(offset: int, epoch: str = f"epoch-of-{ANNA}") -> Connect:
    return Connect(ticket=None, streams=(ResumePoint(stream="me", epoch=epoch, offset=offset),))


def test_a_committed_event_reaches_its_owner_and_nobody_else() -> None:
    world = World()
    _, anna = world.join()
    _, ben = world.join(build.owner("ben"))
    world.store.append(ANNA, build.slot())

    world.hub.pump(1.0)

    assert anna.offsets() == [1]
    assert ben.offsets() == []


def test_staff_follow_the_admin_stream_and_owners_may_not() -> None:
    world = World()
    _, desk = world.join(build.staff())
    world.store.append(ADMIN_STREAM, build.refused())

    world.hub.pump(1.0)

    assert desk.offsets() == [1]
    with pytest.raises(ProtocolFault, match="does not allow the stream admin") as refusal:
        world.join(request=Connect(ticket=None, streams=(ResumePoint(stream="admin"),)))
    assert refusal.value.close_code == CloseCode.FORBIDDEN


def test_a_resume_replays_exactly_what_was_missed_and_goes_on() -> None:
    world = World()
    world.commit(5)
    world.hub.pump(0.0)

    _, outlet = world.join(request=resume(2))
    world.commit(1)
    world.hub.pump(1.0)

    welcome = outlet.frames[0]
    assert welcome["streams"] == [
        {"s": "me", "epoch": f"epoch-of-{ANNA}", "o": 5, "recovered": True}
    ]
    assert outlet.offsets() == [3, 4, 5, 6]
    assert outlet.chain_holds(2)


def test_events_committed_but_not_yet_pumped_are_replayed_once() -> None:
    world = World()
    world.commit(4)

    _, outlet = world.join(request=resume(1))
    world.hub.pump(1.0)

    assert outlet.offsets() == [2, 3, 4]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (resume(1), "events are gone"),
        (resume(9), "ahead of the head"),
        (resume(3, "another"), "another epoch"),
    ],
)
def test_a_gap_that_cannot_be_closed_whole_is_not_replayed_at_all(
    request_: Connect, reason: str
) -> None:
    world = World()
    world.commit(5)
    world.store.forget_before(4)

    _, outlet = world.join(request=request_)

    assert outlet.frames[0]["streams"][0]["recovered"] is False, reason
    assert outlet.offsets() == []


def test_a_gap_longer_than_the_history_is_not_replayed() -> None:
    world = World(BroadcastLimits(history=3))
    world.commit(5)

    _, outlet = world.join(request=resume(1))

    assert outlet.frames[0]["streams"][0]["recovered"] is False


def test_filtered_events_do_not_look_like_loss() -> None:
    world = World()
    mints = EventSubscription(event_types=frozenset({"TokensMinted"}))
    _, outlet = world.join(request=Connect(ticket=None, subscription=mints))
    world.commit(3)
    world.store.append(ANNA, build.minted())

    world.hub.pump(1.0)

    assert outlet.offsets() == [4]
    assert outlet.chain_holds(0)


def test_a_heartbeat_moves_a_filtered_client_past_what_it_does_not_want() -> None:
    world = World()
    mints = EventSubscription(event_types=frozenset({"TokensMinted"}))
    _, outlet = world.join(request=Connect(ticket=None, subscription=mints))
    world.commit(3)
    world.hub.pump(1.0)

    world.hub.tick(60.0)
    world.store.append(ANNA, build.minted())
    world.hub.pump(61.0)

    heartbeat, event = outlet.frames[-2:]
    assert heartbeat["o"] == {"me": 3}
    assert (event["p"], event["o"]) == (3, 4)


def test_a_stuck_connection_keeps_the_newest_reading_of_each_meter_and_every_mint() -> None:
    world = World(BroadcastLimits(soft_bytes=1))
    _, outlet = world.join(outlet=FakeOutlet(stuck=True))
    for number in range(3):
        world.store.append(ANNA, build.slot(reading_id=number))
        world.store.append(ANNA, build.minted(batch_id=number))
    world.hub.pump(1.0)

    outlet.stuck, outlet.buffered = False, 0
    world.hub.drain(2.0)

    events = [(frame["ev"]["type"], frame["o"]) for frame in outlet.frames[1:]]
    assert events == [
        ("TokensMinted", 2),
        ("TokensMinted", 4),
        ("MeterReadingReceived", 5),
        ("TokensMinted", 6),
    ]
    assert outlet.chain_holds(0)


def test_a_connection_that_takes_nothing_is_cut_after_its_time_and_others_go_on() -> None:
    world = World(BroadcastLimits(soft_bytes=1, stalled_s=5.0))
    _, slow = world.join(outlet=FakeOutlet(stuck=True))
    _, fast = world.join()
    world.commit(2)
    world.hub.pump(1.0)

    world.hub.drain(5.9)
    still_there = not slow.aborted
    world.hub.drain(6.1)

    assert still_there
    assert slow.aborted
    assert fast.offsets() == [1, 2]
    assert len(world.hub.connections) == 1


def test_a_connection_is_cut_when_too_much_waits() -> None:
    world = World(BroadcastLimits(soft_bytes=1, hard_bytes=2_000))
    _, outlet = world.join(outlet=FakeOutlet(stuck=True))
    for number in range(10):
        world.store.append(ANNA, build.minted(batch_id=number))

    world.hub.pump(1.0)
    world.hub.drain(1.1)

    assert outlet.aborted


@pytest.mark.parametrize(
    ("who", "at_once"),
    [
        (Principal(role="anonymous", user_id=None, label="203.0.113.9", token_hash=""), 3),
        (build.staff(role="viewer"), 30),
        (build.staff(role="operator"), 300),
        (build.staff(), 300),
    ],
)
def test_events_above_the_rate_of_a_role_wait_and_are_not_dropped(
    who: Principal, at_once: int
) -> None:
    world = World(BroadcastLimits(events_per_minute=3))
    _, outlet = world.join(who)
    for number in range(at_once + 2):
        world.store.append(ADMIN_STREAM, build.completed(batch_id=number))
    while world.hub.pump(0.0):
        pass
    first = outlet.offsets()
    per_event_s = 60 / at_once

    world.hub.drain(per_event_s * 0.9)
    early = outlet.offsets()
    world.hub.drain(per_event_s * 1.1)
    world.hub.drain(per_event_s * 2.2)

    assert first == early == list(range(1, at_once + 1))
    assert outlet.offsets() == list(range(1, at_once + 3))
    assert outlet.chain_holds(0)


def test_an_owner_has_ten_times_the_rate_and_its_readings_are_conflated_meanwhile() -> None:
    world = World(BroadcastLimits(events_per_minute=1))
    _, outlet = world.join()
    world.commit(100)

    world.hub.pump(0.0)
    world.hub.drain(6.1)

    assert outlet.offsets() == [*range(1, 11), 100]


def test_a_peer_that_reads_is_never_cut_for_its_rate_until_too_many_events_wait() -> None:
    world = World(BroadcastLimits(events_per_minute=1, history=5))
    _, outlet = world.join()
    for number in range(15):
        world.store.append(ANNA, build.minted(batch_id=number))
    world.hub.pump(0.0)
    world.hub.drain(0.0)
    as_many_as_may_wait = outlet.closed
    world.store.append(ANNA, build.minted(batch_id=15))
    world.hub.pump(0.0)

    world.hub.drain(0.1)

    assert as_many_as_may_wait is None
    assert (outlet.closed, outlet.aborted) == (CloseCode.SLOW, False)
    assert len(world.hub.connections) == 0


def test_a_resume_is_not_held_up_by_the_rate() -> None:
    world = World(BroadcastLimits(events_per_minute=1))
    world.commit(50)
    world.hub.pump(0.0)

    _, outlet = world.join(request=resume(0))

    assert outlet.offsets() == list(range(1, 51))


@pytest.mark.parametrize(
    "who",
    [
        Principal(role="anonymous", user_id=None, label="203.0.113.9", token_hash=""),
        build.staff(role="viewer"),
    ],
)
def test_without_the_right_to_all_events_only_what_is_on_the_chain_is_seen(
    who: Principal,
) -> None:
    world = World()
    _, early = world.join(who)
    for event in (build.slot(), build.minted(), build.refused(), build.completed()):
        world.store.append(ADMIN_STREAM, event)
    world.hub.publish_sample("anna", build.sample(), 0.0)
    world.hub.pump(0.0)
    public = ResumePoint(stream="public", epoch=f"epoch-of-{ADMIN_STREAM}", offset=0)

    _, late = world.join(who, Connect(ticket=None, streams=(public,)))

    for outlet in (early, late):
        types = [frame["ev"]["type"] for frame in outlet.frames if frame["op"] == "ev"]
        assert types == ["BatchMintingCompleted"]
        assert outlet.chain_holds(0)
    with pytest.raises(ProtocolFault, match="does not allow the stream admin"):
        world.join(who, Connect(ticket=None, streams=(ResumePoint(stream="admin"),)))


def test_an_administrator_sees_who_listens_and_ends_one_connection_for_good() -> None:
    world = World(BroadcastLimits(events_per_minute=1))
    conn, anna = world.join()
    world.join(build.staff())
    for number in range(12):
        world.store.append(ANNA, build.minted(batch_id=number))
    world.hub.pump(0.0)

    listed = world.hub.listeners()
    ended = (world.hub.dismiss(conn), world.hub.dismiss(conn))

    assert listed[0] == {
        "conn": conn,
        "label": "anna",
        "role": "owner",
        "user_id": "anna",
        "streams": ["me"],
        "waiting": 2,
    }
    assert [row["streams"] for row in listed] == [["me"], ["admin"]]
    assert ended == (True, False)
    assert anna.closed == CloseCode.FORBIDDEN
    assert len(world.hub.connections) == 1


def test_who_did_not_sign_in_is_counted_by_address_and_has_nothing_that_could_be_revoked() -> None:
    world = World(BroadcastLimits(per_user=1))
    here, there = (
        Principal(role="anonymous", user_id=None, label=address, token_hash="")
        for address in ("203.0.113.9", "198.51.100.1")
    )
    world.join(here)
    world.join(there)

    with pytest.raises(ProtocolFault) as refusal:
        world.join(here)

    assert refusal.value.close_code == CloseCode.TOO_MANY_CONNECTIONS
    assert world.hub.tick(0.0) == frozenset()


def test_a_long_replay_does_not_count_as_being_slow() -> None:
    world = World(BroadcastLimits(soft_bytes=1, hard_bytes=500))
    world.commit(200)
    outlet = FakeOutlet(stuck=True)

    world.join(request=resume(0), outlet=outlet)
    world.hub.drain(1.0)
    outlet.stuck, outlet.buffered = False, 0
    world.hub.drain(2.0)

    assert not outlet.aborted
    assert outlet.offsets() == list(range(1, 201))


def test_the_connection_above_the_limit_is_refused_and_the_others_stay() -> None:
    world = World(BroadcastLimits(per_user=2))
    first, _ = world.join()
    world.join()

    with pytest.raises(ProtocolFault) as refusal:
        world.join()
    world.hub.release(first)
    world.join()

    assert refusal.value.close_code == CloseCode.TOO_MANY_CONNECTIONS
    assert len(world.hub.connections) == 2


def test_a_released_connection_leaves_nothing_behind() -> None:
    world = World()
    conn, outlet = world.join()

    world.hub.release(conn)
    world.hub.release(conn)
    world.commit(1)
    world.hub.pump(1.0)

    assert outlet.offsets() == []
    assert len(world.hub.connections) == 0
    assert world.hub.connections.on(ANNA) == ()


def test_an_expiring_session_is_announced_and_then_closed() -> None:
    world = World()
    _, outlet = world.join(build.owner(expires_at_ms=world.clock.at_ms + 30_000))

    world.hub.tick(1.0)
    world.hub.tick(2.0)
    world.clock.at_ms += 30_000
    world.hub.tick(3.0)

    assert [frame for frame in outlet.frames if frame["op"] == "expiring"] == [
        {"op": "expiring", "in": 30}
    ]
    assert outlet.closed == CloseCode.SESSION_EXPIRED


def test_a_refresh_keeps_the_connection_for_the_same_user_only() -> None:
    world = World()
    conn, outlet = world.join(build.owner(expires_at_ms=world.clock.at_ms + 1))

    world.hub.refresh(conn, build.owner(expires_at_ms=world.clock.at_ms + 900_000))
    world.clock.at_ms += 2
    world.hub.tick(1.0)

    assert outlet.closed is None
    with pytest.raises(ProtocolFault):
        world.hub.refresh(conn, build.owner("ben"))


def test_revoked_credentials_close_their_connections_only() -> None:
    world = World()
    _, anna = world.join()
    _, ben = world.join(build.owner("ben"))

    seen = world.hub.tick(1.0)
    world.hub.end_credentials(frozenset({build.owner().credential}))

    assert seen == {build.owner().credential, build.owner("ben").credential}
    assert anna.closed == CloseCode.FORBIDDEN
    assert ben.closed is None


def test_a_sample_goes_to_owner_and_staff_without_an_offset() -> None:
    world = World()
    _, anna = world.join()
    _, ben = world.join(build.owner("ben"))
    _, desk = world.join(build.staff())

    world.hub.publish_sample("anna", build.sample(), 1.0)

    assert anna.frames[-1]["ev"]["data"]["active_power_w"] == -2_400
    assert "o" not in anna.frames[-1]
    assert desk.frames[-1]["s"] == "admin"
    assert [frame["op"] for frame in ben.frames] == ["welcome"]


def test_a_new_connection_gets_the_last_sample_of_each_of_its_meters() -> None:
    world = World()
    world.hub.publish_sample("anna", build.sample(active_power_w=1), 1.0)
    world.hub.publish_sample("anna", build.sample(active_power_w=2), 2.0)
    world.hub.publish_sample("ben", build.sample(meter_id="OTHER", user_id="ben"), 2.0)

    _, anna = world.join()

    powers = [f["ev"]["data"]["active_power_w"] for f in anna.frames if f["op"] == "ev"]
    assert powers == [2]


def test_a_stuck_connection_keeps_only_the_newest_sample() -> None:
    world = World(BroadcastLimits(soft_bytes=1))
    _, outlet = world.join(outlet=FakeOutlet(stuck=True))
    for watts in range(5):
        world.hub.publish_sample("anna", build.sample(active_power_w=watts), 1.0)

    outlet.stuck, outlet.buffered = False, 0
    world.hub.drain(2.0)

    powers = [f["ev"]["data"]["active_power_w"] for f in outlet.frames if f["op"] == "ev"]
    assert powers == [4]


@pytest.mark.parametrize(
    ("subscription", "seen"),
    [
        (EVERYTHING, True),
        (EventSubscription(event_types=frozenset({"TokensMinted"})), True),
        (EventSubscription(event_types=frozenset({"MintingFailed"})), False),
        (EventSubscription(meters=frozenset({"BARN-2", "other"})), True),
        (EventSubscription(meters=frozenset({"other"})), False),
        (EventSubscription(min_amount_wh=1_500), True),
        (EventSubscription(min_amount_wh=1_501), False),
    ],
)
def test_a_filter_looks_at_type_meter_and_amount(
    subscription: EventSubscription, seen: bool
) -> None:
    assert subscription.matches(build.minted()) is seen


def test_an_event_about_no_meter_passes_no_meter_filter() -> None:
    assert not EventSubscription(meters=frozenset({"HOUSE-17"})).matches(build.refused())


@given(
    types=st.none() | st.frozensets(st.sampled_from(sorted(EVENT_TYPES))),
    amount=st.none() | st.integers(0, 3_000),
)
def test_a_filter_never_widens(types: frozenset[str] | None, amount: int | None) -> None:
    narrow = EventSubscription(event_types=types, min_amount_wh=amount)
    wide = EventSubscription(event_types=types)

    assert not narrow.matches(build.minted()) or wide.matches(build.minted())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"op":"connect","user":"ben"}',
        '{"op":"connect","streams":[{"s":"user:ben"}]}',
        '{"op":"connect","streams":[{"s":"me","o":1}]}',
        '{"op":"connect","streams":[{"s":"me","epoch":"e","o":-1}]}',
        '{"op":"connect","streams":[{"s":"me","epoch":"e","o":true}]}',
        '{"op":"connect","ticket":7}',
        '{"op":"connect","streams":[{"s":"me"},{"s":"me"}]}',
        '{"op":"filter","types":["Nothing"]}',
        '{"op":"filter","types":[]}',
        '{"op":"filter","min_severity":3}',
        '{"op":"filter","meters":[1]}',
        '{"op":"refresh"}',
        "[" * 20_000,
    ],
)
def test_anything_that_is_not_the_protocol_is_refused(text: str) -> None:
    with pytest.raises(ProtocolFault) as refusal:
        parse_message(text)

    assert refusal.value.close_code == CloseCode.BAD_MESSAGE


@given(
    st.text(max_size=50)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["op", "ticket", "streams", "filter", "s", "epoch", "o", "types", "meters"]
                ),
                inner,
                max_size=4,
            )
        ),
    ).map(json.dumps)
)
def test_no_text_brings_the_parser_down(text: str) -> None:
    with contextlib.suppress(ProtocolFault):
        assert parse_message(text) is not None


def test_a_filter_message_is_read_whole() -> None:
    text = '{"op":"filter","types":["TokensMinted"],"meters":["A"],"min_amount_wh":5}'

    message = parse_message(text)

    assert message == SetFilter(
        EventSubscription(
            event_types=frozenset({"TokensMinted"}), meters=frozenset({"A"}), min_amount_wh=5
        )
    )


@given(st.lists(st.tuples(st.sampled_from(["A", "B", None]), st.integers(1, 50)), max_size=30))
def test_the_queue_keeps_order_counts_bytes_and_loses_only_older_readings(
    arrivals: list[tuple[str | None, int]],
) -> None:
    queue = EventQueue()
    for offset, (meter, size) in enumerate(arrivals, start=1):
        queue.append(QueuedEvent("me", offset, "x" * size, meter))
    expected = [
        offset
        for offset, (meter, _) in enumerate(arrivals, start=1)
        if meter is None or all(later != meter for later, _ in arrivals[offset:])
    ]

    waiting = queue.live_bytes
    taken = []
    while (event := queue.popleft()) is not None:
        taken.append(event)

    assert [event.offset for event in taken] == expected
    assert waiting == sum(len(event.body) for event in taken)
    assert queue.live_bytes == 0


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(rate_per_s=2.0, burst=3)

    at_once = [bucket.take(0.0) for _ in range(4)]
    later = [bucket.take(0.5), bucket.take(0.5)]

    assert at_once == [True, True, True, False]
    assert later == [True, False]
