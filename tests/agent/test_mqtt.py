"""The uplink over a real mosquitto with the shipped configuration."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gridtokenx_agent.adapters.mqtt import MqttAddress, MqttLink
from gridtokenx_agent.adapters.mqtt_session import MqttSession
from gridtokenx_agent.adapters.sqlite_buffer import SqliteBuffer, open_buffer
from gridtokenx_agent.adapters.system import SystemClock
from gridtokenx_agent.errors import BrokerDownError, BrokerRefusedError
from gridtokenx_agent.ports import Acked, Will
from gridtokenx_agent.publish import Publisher, PublisherParts
from gridtokenx_wire.state import GatewayState, encode_state
from gridtokenx_wire.topics import Channel, topic
from tests.support import build
from tests.support.fake_cloud import FakeCloud
from tests.support.mosquitto import shipped_mosquitto
from tests.support.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("mosquitto")]

GATEWAY = build.SIGNER.gateway_id
USERS = {GATEWAY: "gateway-word", "cloud": "cloud-word"}
RECEIPTS = topic(GATEWAY, Channel.RECEIPTS)
WILL = Will(
    topic=topic(GATEWAY, Channel.STATE),
    payload=encode_state(
        GatewayState(state="offline", boot_id="b", since_ms=1, software="gtx-agent test")
    ),
)


class Site:
    """A broker that can be switched off, and a cloud behind it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.broker = ExitStack()
        self.start()
        self.cloud = FakeCloud(self.port, "cloud", USERS["cloud"])
        self.wake = asyncio.Event()

    def start(self) -> None:
        self.broker.enter_context(shipped_mosquitto(self.folder, USERS, self.port))

    def stop(self) -> None:
        self.broker.close()

    def link(self, password: str = USERS[GATEWAY], username: str = GATEWAY) -> MqttLink:
        address = MqttAddress(
            url=f"mqtt://127.0.0.1:{self.port}",
            client_id=GATEWAY,
            username=username,
            password=password,
        )
        return MqttLink(address, self.wake.set)

    def publisher(self, buffer: SqliteBuffer) -> Publisher:
        return Publisher(
            PublisherParts(
                link=self.link(),
                outbox=buffer,
                signer=build.SIGNER,
                cloud_key=build.CLOUD_KEY,
                clock=SystemClock(),
                jitter=lambda _: 0.2,
                software="gtx-agent test",
                beat=lambda _name, _ms: None,
                wake=self.wake,
            )
        )


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = await asyncio.to_thread(Site, tmp_path)
    yield site
    await asyncio.to_thread(site.cloud.close)
    site.stop()


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[SqliteBuffer]:
    opened = open_buffer(tmp_path / "b.db", GATEWAY, 16, 1, 0)
    yield opened
    opened.close()


@contextlib.asynccontextmanager
async def running(publisher: Publisher) -> AsyncIterator[None]:
    task = asyncio.create_task(publisher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def acknowledged(session: MqttSession, wake: asyncio.Event, count: int) -> list[Acked]:
    found: list[Acked] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            await wake.wait()
            wake.clear()
            found += [event for event in session.events() if isinstance(event, Acked)]
    return found


async def emptied(buffer: SqliteBuffer) -> None:
    async with asyncio.timeout(60):
        while await buffer.due(10**15, 1, ()):  # noqa: ASYNC110 - the file sets no event
            await asyncio.sleep(0.05)


async def test_everything_arrives_and_receipts_empty_the_buffer(
    site: Site, buffer: SqliteBuffer
) -> None:
    await build.fill(buffer, "M1", ["event", *["slot", "sample"] * 60])

    async with running(site.publisher(buffer)):
        await emptied(buffer)

    assert {seq for _, _, seq in site.cloud.known()} == set(range(1, 122))


async def test_a_broker_that_dies_and_comes_back_costs_nothing(
    site: Site, buffer: SqliteBuffer
) -> None:
    """paho.mqtt.python#733, #893: sent again by the library after a reconnect."""
    await build.fill(buffer, "M1", ["slot"] * 50)

    async with running(site.publisher(buffer)):
        await emptied(buffer)
        await asyncio.to_thread(site.stop)
        await build.fill(buffer, "M1", ["slot"] * 50, first_seq=51)
        await asyncio.to_thread(site.start)
        site.wake.set()
        await emptied(buffer)

    assert {seq for _, _, seq in site.cloud.known()} == set(range(1, 101))
    assert site.cloud.conflicts == []


async def test_a_cloud_that_sends_no_receipts_gets_the_lines_again(
    site: Site, buffer: SqliteBuffer
) -> None:
    site.cloud.receipts = False
    await build.fill(buffer, "M1", ["slot"] * 5)

    async with running(site.publisher(buffer)):
        await asyncio.to_thread(site.cloud.wait_until, lambda: len(site.cloud.known()) == 5)
        held = await buffer.due(10**15, 10, ())
        site.cloud.receipts = True
        await emptied(buffer)

    assert len(held) == 5


async def test_a_stop_on_purpose_announces_the_end(site: Site, buffer: SqliteBuffer) -> None:
    async with running(site.publisher(buffer)):
        await asyncio.to_thread(site.cloud.wait_until, lambda: site.cloud.states == ["online"])

    await asyncio.to_thread(site.cloud.wait_until, lambda: site.cloud.states[-1] == "offline")


async def test_a_wrong_password_names_broker_and_user_and_not_the_password(site: Site) -> None:
    with pytest.raises(BrokerRefusedError) as caught:
        await site.link("not-the-word").connect((RECEIPTS,), WILL)

    said = str(caught.value)
    assert f"mqtt://127.0.0.1:{site.port} as {GATEWAY}" in said
    assert "mqtt.password_file" in said
    assert "not-the-word" not in said


async def test_a_message_the_broker_may_not_take_counts_as_refused(site: Site) -> None:
    session = await site.link().connect((RECEIPTS,), WILL)
    line = build.row("slot", "M1", 1).line
    mine = session.publish(topic(GATEWAY, Channel.READINGS), line)
    foreign = session.publish(topic(build.CLOUD_KEY_TEXT, Channel.READINGS), line)

    found = await acknowledged(session, site.wake, 2)

    await session.close()
    assert found == [Acked(mine, None), Acked(foreign, "Not authorized")]


async def test_a_closed_session_takes_no_message(site: Site) -> None:
    """telegraf#14750: success reported with the broker switched off."""
    session = await site.link().connect((RECEIPTS,), WILL)
    await session.close()

    with pytest.raises(BrokerDownError, match="not connected"):
        session.publish(RECEIPTS, b"x")


async def test_nobody_at_the_address_is_said_with_the_address() -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    link = MqttLink(MqttAddress(url=url, client_id=GATEWAY), lambda: None)

    with pytest.raises(BrokerDownError, match=f"{url} cannot be reached"):
        await link.connect((RECEIPTS,), WILL)


async def test_an_end_that_meets_the_dialling_leaves_no_connection_and_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up, go_on = threading.Event(), threading.Event()
    connect = socket.create_connection
    ended = asyncio.Event()

    def slowly(*args: Any, **more: Any) -> socket.socket:
        looked_up.set()
        go_on.wait(30)
        return connect(*args, **more)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()
        ended.set()

    monkeypatch.setattr(socket, "create_connection", slowly)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    link = MqttLink(MqttAddress(url=url, client_id=GATEWAY), lambda: None)

    connecting = asyncio.create_task(link.connect((RECEIPTS,), WILL))
    await asyncio.to_thread(looked_up.wait, 30)
    connecting.cancel()
    early, _ = await asyncio.wait([connecting], timeout=0.05)
    go_on.set()
    async with asyncio.timeout(60):
        with contextlib.suppress(asyncio.CancelledError):
            await connecting
        await ended.wait()

    async with asyncio.timeout(60):
        while any("paho" in one.name for one in threading.enumerate()):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)

    server.close()
    assert early == set()
    assert connecting.cancelled()


async def test_a_missing_certificate_file_is_a_fault_to_mend() -> None:
    address = MqttAddress(
        url="mqtts://127.0.0.1:1", client_id=GATEWAY, ca_file=Path("/nowhere/ca.crt")
    )

    with pytest.raises(BrokerRefusedError, match=r"mqtt\.ca_file"):
        await MqttLink(address, lambda: None).connect((RECEIPTS,), WILL)
