"""The uplink against brokers that refuse, lie, hang up, or are too old."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_agent.adapters.mqtt import MqttAddress, MqttLink
from gridtokenx_agent.publish import Publisher, PublisherParts
from gridtokenx_wire.receipt import Receipt
from gridtokenx_wire.state import decode_state
from gridtokenx_wire.topics import Channel, topic
from tests.support import build
from tests.support.fake_bus import SteadyClock
from tests.support.memory_buffer import MemoryBuffer
from tests.support.raw_broker import RawBroker

GATEWAY = build.SIGNER.gateway_id


class Gateway:
    """A publisher on a clock the test moves, over a real connection to a raw broker."""

    def __init__(self, broker: RawBroker) -> None:
        self.broker = broker
        self.buffer = MemoryBuffer()
        self.clock = SteadyClock()
        self.wake = asyncio.Event()
        self.commands: list[bytes] = []
        address = MqttAddress(url=f"mqtt://127.0.0.1:{broker.port}", client_id=GATEWAY)
        self.publisher = Publisher(
            PublisherParts(
                link=MqttLink(address, self.wake.set),
                outbox=self.buffer,
                signer=build.SIGNER,
                cloud_key=build.CLOUD_KEY,
                clock=self.clock,
                jitter=lambda _: 0.0,
                software="gtx-agent test",
                beat=lambda _name, _ms: None,
                wake=self.wake,
            )
        )
        self.publisher.inbox = self.commands.append

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Gateway"]:
        task = asyncio.create_task(self.publisher.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - the broker sets no event
                await asyncio.sleep(0.005)

    async def after(self, elapsed_ms: int) -> None:
        self.clock.advance(elapsed_ms)
        self.wake.set()
        await asyncio.sleep(0.02)

    def waiting(self) -> set[str]:
        return {held.meter_id for held in self.buffer.rows.values() if not held.sent}

    def arrived(self) -> set[bytes]:
        return {line for payload in self.broker.payloads for line in payload.split(b"\n")}


@pytest.mark.parametrize(("code", "reason"), [(0x87, "Not authorized"), (0x97, "Quota exceeded")])
async def test_a_refused_message_is_not_taken_for_delivered(
    code: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with RawBroker(puback=code).serving() as broker:
        gateway = Gateway(broker)
        await build.fill(gateway.buffer, "M1", ["slot", "slot"])

        async with gateway.running():
            await gateway.until(lambda: gateway.publisher.counts.refused == 2)

    assert [held.sent for held in gateway.buffer.rows.values()] == [False, False]
    told = [record for record in caplog.records if record.message == "broker refuses messages"]
    assert [vars(record)["reason"] for record in told] == [reason]


async def test_a_broker_that_refuses_everything_is_not_flooded() -> None:
    async with RawBroker(puback=0x97).serving() as broker:
        gateway = Gateway(broker)
        await build.fill(gateway.buffer, "M1", ["sample"] * 5000)

        async with gateway.running():
            await gateway.until(lambda: gateway.publisher.counts.refused > 0)
            await asyncio.sleep(0.1)
            first = len(broker.payloads)
            for _ in range(60):
                await gateway.after(1000)

    assert first <= 20
    assert len(broker.payloads) <= 20 + 7 * 20


async def test_a_line_the_broker_refuses_lets_the_others_through() -> None:
    async with RawBroker(spoiled=b'"meter_id":"BAD"').serving() as broker:
        gateway = Gateway(broker)
        good = await build.fill(gateway.buffer, "M1", ["slot"] * 20)
        await build.fill(gateway.buffer, "BAD", ["slot"])
        good += await build.fill(gateway.buffer, "M2", ["slot"] * 20)

        async with gateway.running():
            await gateway.until(lambda: gateway.publisher.counts.refused > 0)
            # Fewer seconds than after which a line without receipt is sent again.
            for _ in range(800):
                await gateway.after(1000)
                if gateway.publisher.counts.acknowledged == len(good):
                    break

    assert gateway.publisher.counts.acknowledged == len(good)
    assert [held.sent for held in gateway.buffer.rows.values()].count(False) == 1


async def test_a_line_the_broker_hangs_up_on_is_set_aside_and_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with RawBroker(poison=b'"meter_id":"BAD"').serving() as broker:
        gateway = Gateway(broker)
        good = await build.fill(gateway.buffer, "M1", ["slot"] * 20)
        await build.fill(gateway.buffer, "BAD", ["slot"])
        good += await build.fill(gateway.buffer, "M2", ["slot"] * 20)

        async with gateway.running():
            await gateway.until(lambda: set(good) <= gateway.arrived())
            # Lines cut off with the bad one go twice, so a count of PUBACKs proves nothing.
            await gateway.until(lambda: gateway.waiting() == {"BAD"})

    assert [r.message for r in caplog.records].count(
        "a line on which the broker hangs up is set aside; the others go on"
    ) == 1


async def test_no_message_is_longer_than_the_broker_says_it_takes() -> None:
    async with RawBroker(announced=4096).serving() as broker:
        gateway = Gateway(broker)
        lines = await build.fill(gateway.buffer, "M1", ["slot"] * 60)

        async with gateway.running():
            await gateway.until(lambda: set(lines) <= gateway.arrived())

    assert max(len(payload) for payload in broker.payloads) <= 4096


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_a_broker_too_old_for_mqtt_5_is_spoken_to_in_its_own_language(
    hangs_up: bool, caplog: pytest.LogCaptureFixture
) -> None:
    broker = RawBroker(levels=frozenset({4}), hangs_up=hangs_up)
    async with broker.serving():
        gateway = Gateway(broker)
        lines = await build.fill(gateway.buffer, "M1", ["slot"] * 3)

        async with gateway.running():
            await gateway.until(lambda: set(lines) <= gateway.arrived())
            await gateway.until(lambda: all(h.sent for h in gateway.buffer.rows.values()))

    assert broker.connects == [5, 4]
    told = [r.message for r in caplog.records if "3.1.1" in r.message]
    assert len(told) == 1
    states = [decode_state(payload).state for name, payload in broker.other if "/state" in name]
    assert states == ["online", "offline"]


async def test_in_3_1_1_a_refusal_that_looks_like_success_costs_nothing() -> None:
    broker = RawBroker(levels=frozenset({4}), puback=0x87)
    async with broker.serving():
        gateway = Gateway(broker)
        await build.fill(gateway.buffer, "M1", ["slot"])

        async with gateway.running():
            await gateway.until(lambda: len(broker.payloads) == 1)
            await gateway.until(lambda: gateway.publisher.counts.acknowledged == 1)
            held = len(gateway.buffer.rows)
            await gateway.after(900_001)
            await gateway.until(lambda: len(broker.payloads) == 2)

    assert held == 1
    assert broker.payloads[0] == broker.payloads[1]


async def test_nothing_waits_inside_the_client_while_the_broker_is_away() -> None:
    broker = RawBroker(puback=None)
    async with broker.serving():
        gateway = Gateway(broker)
        first = await build.fill(gateway.buffer, "M1", ["slot"])

        async with gateway.running():
            await gateway.until(lambda: set(first) <= gateway.arrived())
            broker.payloads.clear()
            broker.puback = 0
            broker.cut()
            await gateway.until(lambda: len(broker.connects) == 2)
            await gateway.until(lambda: gateway.publisher.counts.acknowledged == 1)
            await asyncio.sleep(0.1)

    assert broker.payloads == first


async def test_commands_come_in_and_replies_go_out_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with RawBroker().serving() as broker:
        gateway = Gateway(broker)

        async with gateway.running():
            await gateway.until(lambda: gateway.publisher.counts.connected == 1)
            broker.deliver(topic(GATEWAY, Channel.COMMANDS), b"do it")
            await gateway.until(lambda: gateway.commands == [b"do it"])
            gateway.publisher.reply(b"done")
            await gateway.until(lambda: gateway.publisher.silent)

    replies = [payload for name, payload in broker.other if name.endswith("/replies")]
    assert replies == [b"done"]


async def test_a_receipt_of_a_forger_is_counted_and_ignored() -> None:
    async with RawBroker().serving() as broker:
        gateway = Gateway(broker)
        await build.fill(gateway.buffer, "M1", ["slot"])
        forged = build.sealed(
            Receipt(gateway_id=GATEWAY, issued_ms=1, durable={"M1": {build.EPOCH: ((1, 1),)}}),
            Ed25519PrivateKey.from_private_bytes(b"f" * 32),
        )

        async with gateway.running():
            await gateway.until(lambda: gateway.publisher.counts.acknowledged == 1)
            broker.deliver(topic(GATEWAY, Channel.RECEIPTS), forged)
            await gateway.until(lambda: gateway.publisher.counts.receipts_ignored == 1)

    assert len(gateway.buffer.rows) == 1
