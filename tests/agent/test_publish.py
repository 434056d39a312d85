"""From the buffer to the broker, and back as a receipt."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_agent.errors import BrokerDownError, BrokerRefusedError
from gridtokenx_agent.publish import ACK_TIMEOUT_MS, Publisher, PublisherParts
from gridtokenx_agent.traffic import pause_s
from gridtokenx_wire.receipt import Receipt
from gridtokenx_wire.state import decode_state
from gridtokenx_wire.topics import Channel, topic
from tests.support import build
from tests.support.fake_broker import FakeLink
from tests.support.fake_bus import SteadyClock
from tests.support.memory_buffer import MemoryBuffer

RECEIPTS = topic(build.SIGNER.gateway_id, Channel.RECEIPTS)


class Uplink:
    """A publisher between a buffer in memory and a fake broker."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.link = FakeLink(self.wake)
        self.buffer = MemoryBuffer()
        self.clock = SteadyClock()
        self.beats: list[str] = []
        self.waits: list[float] = []
        self.publisher = Publisher(
            PublisherParts(
                link=self.link,
                outbox=self.buffer,
                signer=build.SIGNER,
                cloud_key=build.CLOUD_KEY,
                clock=self.clock,
                jitter=self._jitter,
                software="gtx-agent test",
                beat=lambda name, _: self.beats.append(name),
                wake=self.wake,
            )
        )
        self.task: asyncio.Task[None] | None = None

    def _jitter(self, longest_s: float) -> float:
        self.waits.append(longest_s)
        return 0.0

    async def __aenter__(self) -> "Uplink":
        self.task = asyncio.create_task(self.publisher.run())
        await self.settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def settle(self) -> None:
        """Let the publisher do everything it can do now."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - the fake sets no event
                await asyncio.sleep(0)

    async def receive(self, receipt: Receipt, key: Ed25519PrivateKey = build.CLOUD) -> None:
        self.link.deliver(RECEIPTS, build.sealed(receipt, key))
        await self.settle()

    def sent(self) -> list[bytes]:
        return [line for message in self.link.session.readings for line in message]


async def test_lines_that_wait_together_travel_together_in_order() -> None:
    uplink = Uplink()
    lines = await build.fill(uplink.buffer, "M1", ["event", "slot", "sample"])

    async with uplink:
        assert uplink.link.session.readings == [lines]


async def test_nothing_is_forgotten_for_the_brokers_word() -> None:
    uplink = Uplink()
    await build.fill(uplink.buffer, "M1", ["slot"])

    async with uplink:
        assert [held.sent for held in uplink.buffer.rows.values()] == [True]


async def test_a_signed_receipt_lets_the_buffer_forget() -> None:
    uplink = Uplink()
    await build.fill(uplink.buffer, "M1", ["slot"] * 3)

    async with uplink:
        await uplink.receive(build.receipt("M1", (1, 1), (3, 3)))

        assert [held.row.seq for held in uplink.buffer.rows.values()] == [2]


async def test_a_forged_receipt_is_ignored_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    uplink = Uplink()
    await build.fill(uplink.buffer, "M1", ["slot"])
    forger = Ed25519PrivateKey.from_private_bytes(b"f" * 32)

    async with uplink:
        for _ in range(3):
            await uplink.receive(build.receipt("M1", (1, 1)), forger)
        uplink.link.deliver(RECEIPTS, b"\x00 no receipt at all")
        await uplink.settle()

    assert len(uplink.buffer.rows) == 1
    assert [r.message for r in caplog.records].count("receipt ignored") == 1


async def test_a_receipt_for_another_gateway_is_ignored() -> None:
    uplink = Uplink()
    await build.fill(uplink.buffer, "M1", ["slot"])
    foreign = Receipt(
        gateway_id=build.CLOUD_KEY_TEXT, issued_ms=1, durable={"M1": {build.EPOCH: ((1, 1),)}}
    )

    async with uplink:
        await uplink.receive(foreign)

    assert len(uplink.buffer.rows) == 1


async def test_a_line_the_cloud_refused_is_told_once_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    uplink = Uplink()
    lines = await build.fill(uplink.buffer, "M1", ["slot"])

    async with uplink:
        await uplink.receive(build.receipt("M1", rejected=lines))
        await uplink.receive(build.receipt("M1", rejected=lines))

    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [vars(record)["code"] for record in told] == ["BadSignature"]
    assert uplink.buffer.rows == {}


async def test_a_refused_message_is_tried_again_later_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    uplink = Uplink()
    uplink.link.refusal = "Not authorized"
    await build.fill(uplink.buffer, "M1", ["slot"])

    async with uplink:
        before = len(uplink.sent())
        uplink.clock.advance(1_000)
        uplink.wake.set()
        await uplink.settle()

        assert (before, len(uplink.sent())) == (1, 2)
    assert [r.message for r in caplog.records].count("broker refuses messages") == 1
    assert [held.sent for held in uplink.buffer.rows.values()] == [False]


async def test_without_a_receipt_a_row_goes_again_byte_for_byte() -> None:
    uplink = Uplink()
    lines = await build.fill(uplink.buffer, "M1", ["slot"])

    async with uplink:
        uplink.clock.advance(900_000)
        uplink.wake.set()
        await uplink.settle()

        assert uplink.sent() == lines * 2


async def test_a_lost_connection_sends_everything_unreceipted_again() -> None:
    """telegraf#16500, #15868: replayed whole, or never emptied."""
    uplink = Uplink()
    lines = await build.fill(uplink.buffer, "M1", ["slot", "slot"])

    async with uplink:
        uplink.link.cut()
        await uplink.until(lambda: len(uplink.link.sessions) == 2)
        await uplink.settle()

        assert uplink.sent() == lines


async def test_no_more_than_the_window_is_under_way() -> None:
    """thingsboard-gateway#16: too many publishes in progress after a long outage."""
    uplink = Uplink()
    uplink.link.answers = False
    await build.fill(uplink.buffer, "M1", ["sample"] * 1100)

    async with uplink:
        assert len(uplink.link.session.published) == uplink.link.session.window


async def test_a_broker_that_acknowledges_nothing_is_left() -> None:
    uplink = Uplink()
    uplink.link.answers = False
    await build.fill(uplink.buffer, "M1", ["slot"])

    async with uplink:
        uplink.clock.advance(ACK_TIMEOUT_MS + 1)
        uplink.wake.set()
        await uplink.until(lambda: len(uplink.link.sessions) == 2)

        assert not uplink.link.sessions[0].alive


async def test_a_new_row_leaves_at_once() -> None:
    uplink = Uplink()

    async with uplink:
        await build.fill(uplink.buffer, "M1", ["slot"])
        uplink.wake.set()
        await uplink.settle()

        assert len(uplink.sent()) == 1


async def test_birth_and_death_are_announced() -> None:
    uplink = Uplink()

    async with uplink:
        (_, birth) = uplink.link.session.published[1]

    assert decode_state(birth).state == "online"
    assert decode_state(uplink.link.wills[0].payload).state == "offline"
    assert not uplink.link.session.alive


@pytest.mark.parametrize(
    "trouble", [BrokerDownError("nobody there"), BrokerRefusedError("bad password; check it")]
)
async def test_a_broker_in_trouble_is_told_once_and_asked_again(
    trouble: BrokerDownError | BrokerRefusedError, caplog: pytest.LogCaptureFixture
) -> None:
    uplink = Uplink()
    uplink.link.trouble = trouble

    async with uplink:
        await uplink.until(lambda: uplink.link.attempts > 8)
        uplink.link.trouble = None
        await uplink.until(lambda: bool(uplink.link.sessions))
        await uplink.settle()

    with caplog.at_level(logging.INFO):
        told = [record for record in caplog.records if record.message == "broker trouble"]
    assert [vars(record)["reason"] for record in told] == [str(trouble)]
    assert uplink.waits[:8] == [1, 2, 4, 8, 16, 32, 64, 120]


async def test_a_broker_that_cuts_every_session_is_left_alone_ever_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    uplink = Uplink()
    uplink.link.answers = False

    async with uplink:
        for session in range(1, 6):
            uplink.link.cut()
            await uplink.until(lambda wanted=session: len(uplink.link.sessions) > wanted)  # type: ignore[misc]
            await uplink.settle()

    assert uplink.waits == [1, 2, 4, 8, 16]
    assert [record.message for record in caplog.records] == ["broker trouble"]


def test_the_wait_for_a_broker_is_bounded() -> None:
    assert pause_s(10_000) == 120


async def test_a_message_cut_short_keeps_the_newest_slot() -> None:
    uplink = Uplink()
    await build.fill(uplink.buffer, "M1", ["sample"] * 20)
    (live,) = await build.fill(uplink.buffer, "M2", ["slot"])
    uplink.link.max_bytes = 3 * len(live)

    async with uplink:
        first = uplink.link.session.readings[0]

    assert live in first
    assert len(first) < 20


async def test_receipts_that_came_together_are_one_commit() -> None:
    async with Uplink() as uplink:
        await build.fill(uplink.buffer, "M1", ["slot"] * 3)
        uplink.wake.set()
        await uplink.settle()
        uplink.buffer.settles = 0
        for seq in (1, 2, 3):
            uplink.link.deliver(RECEIPTS, build.sealed(build.receipt("M1", (seq, seq))))
        await uplink.settle()

    assert uplink.publisher.counts.receipts == 3
    assert uplink.publisher.counts.forgotten == 3
    assert uplink.buffer.settles == 1
