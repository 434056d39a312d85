"""The events server with real sockets."""

import asyncio
import contextlib
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from gridtokenx_cloud.adapters.limits import AccessLimits
from gridtokenx_cloud.adapters.websocket_api import EventServer, EventServerLimits
from gridtokenx_cloud.broadcast import BroadcastLimits
from gridtokenx_cloud.errors import ConfigError
from gridtokenx_cloud.events import ADMIN_STREAM, user_stream
from tests.support import build_events as build
from tests.support.live_site import event_server
from tests.support.ports import free_port
from tests.support.store_rows import StoreRows

pytestmark = pytest.mark.integration

ORIGIN = "http://page.test"
ANNA = user_stream("anna")
PATIENCE_S = 60.0
MOST_AHEAD = 100


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[StoreRows]:
    rows = StoreRows(tmp_path / "cloud.db")
    yield rows
    rows.database.close()


@pytest.fixture
def serve(rows: StoreRows) -> Iterator[Callable[..., EventServer]]:
    """Start servers that end with the test."""
    started: list[EventServer] = []

    def start(**options: Any) -> EventServer:
        started.append(event_server(rows, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def dial(server: EventServer, **options: Any) -> connect:
    values: dict[str, Any] = {
        "origin": ORIGIN,
        "subprotocols": [Subprotocol("gridtokenx.v1")],
        "compression": None,
        "proxy": None,
        "open_timeout": PATIENCE_S,
    }
    return connect(f"ws://127.0.0.1:{server.port}/ws", **{**values, **options})


def ticket(rows: StoreRows, token: str) -> str:
    principal = rows.access.authenticate(token)
    assert principal is not None
    return rows.access.issue_ticket(principal)


async def hello(ws: ClientConnection, pass_: str | None, **more: Any) -> dict[str, Any]:
    message = more if pass_ is None else {"ticket": pass_, **more}
    await ws.send(json.dumps({"op": "connect", **message}))
    return await take(ws)


async def take(ws: ClientConnection, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
    async with asyncio.timeout(timeout_s):
        frame: dict[str, Any] = json.loads(await ws.recv())
    return frame


async def closing(ws: ClientConnection, timeout_s: float = PATIENCE_S) -> int | None:
    """Read until the server closes; return its code."""
    async with asyncio.timeout(timeout_s):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await ws.recv()
    return ws.close_code


async def until(holds: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 - looks at a thread's state, there is no event for it
            await asyncio.sleep(0.01)


async def test_an_event_comes_through_with_its_offset(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve(server_limits=EventServerLimits(poll_interval_s=60.0))
    token = rows.user("anna")

    async with dial(server) as ws:
        welcome = await hello(ws, ticket(rows, token))
        rows.event((ANNA,), build.minted())
        server.wake()
        event = await take(ws)

    assert welcome["op"] == "welcome"
    assert welcome["streams"][0]["o"] == 0
    assert (event["s"], event["o"], event["p"]) == ("me", 1, 0)
    assert event["ev"]["type"] == "TokensMinted"
    assert event["ev"]["data"]["tokens_minted"] == "1500000000"


async def test_without_a_wake_up_an_event_comes_at_the_interval(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()

    async with dial(server) as ws:
        await hello(ws, ticket(rows, rows.user("anna")))
        rows.event((ANNA,), build.slot())

        assert (await take(ws))["o"] == 1


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "https://page.test",
        "http://page.test:81",
        "http://page.test.evil.test",
        "http://PAGE.test",
    ],
)
async def test_a_foreign_origin_is_turned_away_before_the_upgrade(
    serve: Callable[..., EventServer], origin: str | None
) -> None:
    server = serve()

    with pytest.raises(InvalidStatus) as refusal:
        await dial(server, origin=origin)

    assert refusal.value.response.status_code == 403


async def test_a_client_without_the_subprotocol_is_turned_away(
    serve: Callable[..., EventServer],
) -> None:
    server = serve()

    with pytest.raises(InvalidStatus) as refusal:
        await dial(server, subprotocols=None)

    assert refusal.value.response.status_code == 400


async def test_a_program_may_come_with_its_token_in_the_handshake(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()
    headers = {"Authorization": f"Bearer {rows.staff()}"}

    async with dial(server, origin=None, additional_headers=headers) as ws:
        welcome = await hello(ws, None)

    assert welcome["streams"][0]["s"] == "admin"


async def test_a_ticket_opens_one_connection_only(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()
    once = ticket(rows, rows.user("anna"))

    async with dial(server) as first, dial(server) as second:
        welcome = await hello(first, once)
        refusal = await hello(second, once)
        code = await closing(second)

    assert welcome["op"] == "welcome"
    assert (refusal["op"], refusal["code"], code) == ("error", "invalid_ticket", 4004)


async def test_an_address_with_too_many_wrong_tickets_is_turned_away_before_the_upgrade(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    limits = AccessLimits(rows.clock, 1_000, failures_per_minute=2)
    server = serve(access_limits=limits)
    good = rows.user("anna")
    for _ in range(2):
        async with dial(server) as ws:
            await hello(ws, "guess")

    with pytest.raises(InvalidStatus) as refusal:
        await dial(server)
    rows.clock.at_ms += 1000 * int(refusal.value.response.headers["Retry-After"])
    async with dial(server) as ws:
        welcome = await hello(ws, ticket(rows, good))

    assert refusal.value.response.status_code == 429
    assert welcome["op"] == "welcome"


async def test_a_token_that_connects_too_often_is_told_to_back_off(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve(access_limits=AccessLimits(rows.clock, 1))
    headers = {"Authorization": f"Bearer {rows.staff()}"}

    async with dial(server, origin=None, additional_headers=headers) as ws:
        welcome = await hello(ws, None)
    async with dial(server, origin=None, additional_headers=headers) as ws:
        refusal = await hello(ws, None)
        code = await closing(ws)

    assert welcome["op"] == "welcome"
    assert (refusal["code"], code) == ("rate_limited", 4101)


@pytest.mark.parametrize("origin", [None, ORIGIN])
async def test_where_no_sign_in_is_asked_for_anybody_follows_the_batches(
    rows: StoreRows, serve: Callable[..., EventServer], origin: str | None
) -> None:
    server = serve(server_limits=EventServerLimits(auth_required=False, poll_interval_s=0.05))

    async with dial(server, origin=origin) as ws:
        welcome = await hello(ws, None)
        rows.event((ADMIN_STREAM,), build.minted())
        rows.event((ADMIN_STREAM,), build.completed())
        event = await take(ws)
    async with dial(server, origin=ORIGIN) as ws:
        wrong = await hello(ws, "guess")

    assert [stream["s"] for stream in welcome["streams"]] == ["public"]
    assert (event["o"], event["ev"]["type"]) == (2, "BatchMintingCompleted")
    assert wrong["code"] == "invalid_ticket"


async def test_a_connection_is_listed_and_closed_from_another_thread(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()

    async with dial(server) as ws:
        welcome = await hello(ws, ticket(rows, rows.user("anna")))
        listed = await asyncio.to_thread(server.connections)
        closed = await asyncio.to_thread(server.close_connection, str(welcome["conn"]))
        code = await closing(ws)
    server.stop()

    assert [row["conn"] for row in listed] == [welcome["conn"]]
    assert (closed, code) == (True, 4003)


@pytest.mark.parametrize("compression", [False, True])
async def test_frames_are_deflated_only_where_that_is_set(
    rows: StoreRows, serve: Callable[..., EventServer], compression: bool
) -> None:
    limits = EventServerLimits(compression=compression, poll_interval_s=0.05)
    server = serve(server_limits=limits)

    async with dial(server, compression="deflate") as ws:
        await hello(ws, ticket(rows, rows.user("anna")))
        rows.event((ANNA,), build.minted())
        event = await take(ws)
        assert ws.response is not None
        extensions = ws.response.headers.get("Sec-WebSocket-Extensions", "")

    assert event["ev"]["type"] == "TokensMinted"
    assert ("permessage-deflate" in extensions) is compression


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"op":"connect"}', 4004),
        ('{"op":"connect","ticket":"wrong"}', 4004),
        ('{"op":"filter"}', 4001),
        ("{", 4001),
        (b"\x00", 4001),
        ('{"op":"connect","ticket":"' + "x" * 20_000 + '"}', 1009),
    ],
)
async def test_a_bad_first_message_closes_with_its_code(
    serve: Callable[..., EventServer], message: str | bytes, code: int
) -> None:
    server = serve()

    async with dial(server) as ws:
        await ws.send(message)

        assert await closing(ws) == code


async def test_a_connection_that_says_nothing_is_closed_in_time(
    serve: Callable[..., EventServer],
) -> None:
    server = serve(server_limits=EventServerLimits(auth_timeout_s=0.2))

    async with dial(server) as ws:
        assert await closing(ws) == 4008


async def test_two_users_never_see_each_others_events(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()
    tokens = {name: rows.user(name) for name in ("anna", "ben")}

    async with dial(server) as anna, dial(server) as ben:
        await hello(anna, ticket(rows, tokens["anna"]))
        await hello(ben, ticket(rows, tokens["ben"]))
        for number in range(40):
            name = ("anna", "ben")[number % 2]
            rows.event((user_stream(name),), build.slot(user_id=name, reading_id=number))
            server.publish_sample(name, build.sample(user_id=name, meter_id=f"of {name}"))
        for ws, name in ((anna, "anna"), (ben, "ben")):
            offsets: list[int] = []
            while len(offsets) < 20:
                frame = await take(ws)
                assert frame["ev"]["data"]["user_id"] == name
                if "o" in frame:
                    offsets.append(frame["o"])

            assert offsets == list(range(1, 21))


async def test_naming_another_stream_is_refused(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()

    async with dial(server) as ws:
        await hello(ws, ticket(rows, rows.user("anna")), streams=[{"s": "admin"}])

        assert await closing(ws) == 4003


async def test_the_last_sample_is_there_at_once_for_a_new_connection(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()
    token = rows.user("anna")
    async with dial(server) as ws:
        await hello(ws, ticket(rows, token))
        server.publish_sample("anna", build.sample(active_power_w=-77))
        await take(ws)

    async with dial(server) as ws:
        await hello(ws, ticket(rows, token))
        frame = await take(ws)

    assert frame["ev"]["data"]["active_power_w"] == -77


async def test_a_client_resumes_whole_after_the_server_restarts(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    # A port of its own, so that nobody has it while no server is there.
    first = serve(port=free_port())
    token = rows.user("anna")
    async with dial(first) as ws:
        epoch = (await hello(ws, ticket(rows, token)))["streams"][0]["epoch"]
        rows.event((ANNA,), build.slot())
        seen = [(await take(ws))["o"]]
        await asyncio.to_thread(first.stop)
        code = await closing(ws)
    for number in range(3):
        rows.event((ANNA,), build.minted(batch_id=number))
    second = serve(port=first.port)

    async with dial(second) as ws:
        streams = [{"s": "me", "epoch": epoch, "o": seen[-1]}]
        welcome = await hello(ws, ticket(rows, token), streams=streams)
        rows.event((ANNA,), build.minted(batch_id=3))
        seen += [(await take(ws))["o"] for _ in range(4)]

    assert code == 1012
    assert welcome["streams"] == [{"s": "me", "epoch": epoch, "o": 4, "recovered": True}]
    assert seen == [1, 2, 3, 4, 5]


async def test_reconnecting_while_events_are_committed_loses_and_doubles_none(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    # A small kernel buffer, or the race between replay and registration hides in it.
    server = serve(
        limits=BroadcastLimits(history=100_000),
        server_limits=EventServerLimits(send_buffer_bytes=4_608, poll_interval_s=0.01),
    )
    token = rows.user("anna")
    enough = threading.Event()

    def commit() -> None:
        for number in itertools.count():
            if enough.is_set():
                return
            rows.event((ANNA,), build.minted(batch_id=number))
            server.wake()
            # Never so far ahead of the reader that it is cut for being slow.
            while number - last > MOST_AHEAD and not enough.is_set():
                time.sleep(0.001)
            time.sleep(0.002)

    writer = threading.Thread(target=commit)
    epoch, last, received = None, 0, []
    try:
        for round_ in range(25):
            async with dial(server) as ws:
                streams = [{"s": "me", "epoch": epoch, "o": last}] if epoch else [{"s": "me"}]
                welcome = await hello(ws, ticket(rows, token), streams=streams)
                [state] = welcome["streams"]
                assert state.get("recovered", True)
                epoch = state["epoch"]
                if round_ == 0:
                    writer.start()
                for _ in range(15):
                    frame = await take(ws)
                    assert frame["p"] == last
                    last = frame["o"]
                    received.append(last)
                # Cut in the middle: what was sent and not read has to come again.
                ws.transport.abort()
    finally:
        enough.set()
        writer.join()

    assert received == list(range(1, len(received) + 1))


async def test_a_client_that_reads_nothing_is_cut_and_the_others_do_not_notice(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve(
        limits=BroadcastLimits(soft_bytes=16_384, hard_bytes=65_536, stalled_s=30.0),
        server_limits=EventServerLimits(send_buffer_bytes=8_192, poll_interval_s=0.01),
    )
    token = rows.user("anna")
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    deaf.setblocking(False)
    await asyncio.get_running_loop().sock_connect(deaf, ("127.0.0.1", server.port))

    async with dial(server) as fast, dial(server, sock=deaf, max_queue=1) as slow:
        await hello(fast, ticket(rows, token))
        await hello(slow, ticket(rows, token))
        slow.transport.pause_reading()
        for number in range(400):
            rows.event((ANNA,), build.minted(batch_id=number))
            assert (await take(fast))["o"] == number + 1
        await until(lambda: server.open_connections == 1)
        rows.event((ANNA,), build.slot())

        assert (await take(fast))["o"] == 401
        slow.transport.abort()


async def test_a_vanished_client_leaves_nothing_behind(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()
    token = rows.user("anna")
    for _ in range(7):
        ws = await dial(server)
        await hello(ws, ticket(rows, token))
        raw = ws.transport.get_extra_info("socket")
        # A reset instead of a goodbye.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ws.transport.abort()

        await until(lambda: server.open_connections == 0)


async def test_the_sixth_connection_of_a_user_is_refused_and_five_stay(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()
    token = rows.user("anna")
    open_: list[ClientConnection] = []
    for _ in range(5):
        open_.append(await dial(server))
        await hello(open_[-1], ticket(rows, token))

    async with dial(server) as sixth:
        await hello(sixth, ticket(rows, token))
        code = await closing(sixth)
    rows.event((ANNA,), build.slot())
    offsets = [(await take(ws))["o"] for ws in open_]
    for ws in open_:
        await ws.close()

    assert code == 4009
    assert offsets == [1] * 5


async def test_a_full_server_refuses_before_the_upgrade(
    serve: Callable[..., EventServer],
) -> None:
    server = serve(server_limits=EventServerLimits(max_connections=1))

    async with dial(server):
        with pytest.raises(InvalidStatus) as refusal:
            await dial(server)

    assert refusal.value.response.status_code == 503


async def test_an_expired_session_ends_its_connection(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()
    token = rows.access.create_token("short", "viewer", None, 30, "test")

    async with dial(server) as ws:
        await hello(ws, ticket(rows, token))
        rows.clock.at_ms += 30_000

        assert await closing(ws) == 4201


async def test_signing_out_ends_the_connection_of_that_session_only(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()
    token = rows.user("anna")
    opened = rows.access.open_session(token)
    assert opened is not None

    async with dial(server) as browser, dial(server) as other:
        await hello(browser, rows.access.issue_ticket(opened[1]))
        await hello(other, ticket(rows, token))
        rows.access.close_session(opened[0])
        code = await closing(browser)
        rows.event((ANNA,), build.slot())

        assert code == 4003
        assert (await take(other))["o"] == 1


async def test_a_filter_changes_what_comes_and_a_refresh_keeps_it_coming(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()
    token = rows.user("anna")

    async with dial(server) as ws:
        await hello(ws, ticket(rows, token))
        await ws.send('{"op":"filter","types":["TokensMinted"]}')
        await ws.send(json.dumps({"op": "refresh", "ticket": ticket(rows, token)}))
        # The server works through messages in order: with the ticket the filter is taken, too.
        await until(lambda: tickets(rows) == 0)
        rows.event((ANNA,), build.slot())
        rows.event((ANNA,), build.minted())
        frame = await take(ws)

    assert (frame["o"], frame["p"]) == (2, 0)


def tickets(rows: StoreRows) -> int:
    """Return how many tickets nobody has used yet."""
    [row] = rows.database.connection.execute("SELECT count(*) FROM ws_tickets").fetchall()
    return int(row[0])


async def test_somebody_elses_ticket_does_not_refresh(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()
    anna, ben = rows.user("anna"), rows.user("ben")

    async with dial(server) as ws:
        await hello(ws, ticket(rows, anna))
        await ws.send(json.dumps({"op": "refresh", "ticket": ticket(rows, ben)}))

        assert await closing(ws) == 4003


async def test_a_client_that_floods_is_closed(
    rows: StoreRows, serve: Callable[..., EventServer]
) -> None:
    server = serve()

    async with dial(server) as ws:
        await hello(ws, ticket(rows, rows.user("anna")))
        # Until it is: a busy machine may take them no faster than is allowed for a while.
        with contextlib.suppress(ConnectionClosed):
            while True:
                await ws.send('{"op":"filter"}')
                await asyncio.sleep(0)

        assert await closing(ws) == 4101


def test_a_port_in_use_is_named(rows: StoreRows, serve: Callable[..., EventServer]) -> None:
    server = serve()

    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{server.port} cannot be bound"):
        event_server(rows, port=server.port)


def test_stopping_twice_and_waking_afterwards_is_harmless(
    serve: Callable[..., EventServer],
) -> None:
    server = serve()

    server.stop()
    server.stop()
    server.wake()

    assert server.failure is None


def test_health_is_answered_without_a_handshake(serve: Callable[..., EventServer]) -> None:
    server = serve()

    with socket.create_connection(("127.0.0.1", server.port)) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        plain.settimeout(PATIENCE_S)
        answer = b""
        while part := plain.recv(4_096):
            answer += part

    assert answer.startswith(b"HTTP/1.1 200")
