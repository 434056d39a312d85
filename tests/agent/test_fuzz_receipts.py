"""Whatever arrives as a receipt, the publisher goes on, and forgets only what the cloud signed."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gridtokenx_agent.adapters.sqlite_buffer import SqliteBuffer, open_buffer
from gridtokenx_agent.publish import Publisher, PublisherParts
from gridtokenx_wire import canonical
from gridtokenx_wire.errors import WireError
from gridtokenx_wire.receipt import decode_receipt, encode_receipt
from gridtokenx_wire.signing import RECEIPT_DOMAIN, seal, verify_ed25519
from gridtokenx_wire.topics import Channel, topic
from tests.support import build
from tests.support.fake_broker import FakeLink
from tests.support.fake_bus import SteadyClock
from tests.support.memory_buffer import MemoryBuffer

RECEIPTS = topic(build.SIGNER.gateway_id, Channel.RECEIPTS)
TRUE = encode_receipt(build.receipt("M1", (2, 2)), build.CLOUD.sign)

quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])

numbers = st.one_of(st.integers(-2, 5), st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, 2**64]))
scraps = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8), st.just("\ud800")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
ranges = st.one_of(scraps, st.lists(st.lists(numbers, min_size=1, max_size=3), max_size=3))
epochs = st.one_of(scraps, st.dictionaries(st.just(build.EPOCH), ranges, max_size=1))
durable = st.one_of(scraps, st.dictionaries(st.sampled_from(["M1", "M2", ""]), epochs, max_size=2))
rejected = st.one_of(
    scraps,
    st.lists(
        st.fixed_dictionaries(
            {"line": st.one_of(scraps, st.just("a" * 64)), "code": scraps, "reason": scraps}
        ),
        max_size=2,
    ),
)
receipts = st.fixed_dictionaries(
    {"durable": durable, "rejected": rejected},
    optional={
        "v": st.sampled_from([1, 2, "1"]),
        "gateway_id": st.one_of(st.just(build.SIGNER.gateway_id), scraps),
        "issued_ms": numbers,
    },
)


async def _deliver(payloads: list[bytes]) -> list[int]:
    """Return the numbers of the lines that still wait after all payloads, of 1, 2 and 3."""
    wake = asyncio.Event()
    link, buffer = FakeLink(wake), MemoryBuffer()
    await build.fill(buffer, "M1", ["slot"] * 3)
    publisher = Publisher(
        PublisherParts(
            link=link,
            outbox=buffer,
            signer=build.SIGNER,
            cloud_key=build.CLOUD_KEY,
            clock=SteadyClock(),
            jitter=lambda _: 0.0,
            software="gtx-agent test",
            beat=lambda *_: None,
            wake=wake,
        )
    )
    task = asyncio.create_task(publisher.run())
    for payload in (b"", *payloads):
        for _ in range(30):
            await asyncio.sleep(0)
        link.deliver(RECEIPTS, payload)
    for _ in range(30):
        await asyncio.sleep(0)
    waiting = sorted(held.row.seq for held in buffer.rows.values())
    assert not task.done()
    assert len(link.sessions) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return waiting


@quick
@given(payloads=st.lists(st.binary(max_size=400), max_size=3))
@example(payloads=[b"\0" * 64, b"{}", b"\xff" * 400])
def test_noise_is_no_receipt(payloads: list[bytes]) -> None:
    assert asyncio.run(_deliver(payloads)) == [1, 2, 3]


@quick
@given(place=st.integers(0, len(TRUE) - 1), change=st.integers(1, 255))
def test_a_receipt_with_one_spoilt_byte_is_no_receipt(place: int, change: int) -> None:
    spoilt = TRUE[:place] + bytes((TRUE[place] ^ change,)) + TRUE[place + 1 :]

    assert asyncio.run(_deliver([spoilt])) == [1, 2, 3]


@quick
@given(cut=st.integers(1, len(TRUE)), tail=st.binary(min_size=1, max_size=5))
def test_a_receipt_cut_short_or_with_a_tail_is_no_receipt(cut: int, tail: bytes) -> None:
    assert asyncio.run(_deliver([TRUE[:-cut], TRUE + tail])) == [1, 2, 3]


@quick
@given(value=receipts)
@example(value={"durable": {"M1": {build.EPOCH: [[0, 2**64]]}}, "rejected": []})
@example(value={"durable": {"M1": {build.EPOCH: [[3, 1]]}}, "rejected": []})
@example(value={"durable": {"\ud800": {build.EPOCH: [[1, 3]]}}, "rejected": []})
def test_whatever_the_cloud_signs_the_next_receipt_is_taken(value: dict[str, Any]) -> None:
    odd = {"v": 1, "gateway_id": build.SIGNER.gateway_id, "issued_ms": 1} | value
    payload = seal(canonical.dump(odd), RECEIPT_DOMAIN, build.CLOUD.sign)

    waiting = asyncio.run(_deliver([payload, TRUE]))

    assert 2 not in waiting


@pytest.fixture(scope="module")
def buffer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteBuffer]:
    path = tmp_path_factory.mktemp("buffer") / "buffer.db"
    buffer = open_buffer(path, build.SIGNER.gateway_id, 64, 60, build.NOON_MS)
    yield buffer
    buffer.close()


@quick
@given(value=receipts)
@example(value={"durable": {"M1": {build.EPOCH: [[0, 2**64]]}}, "rejected": []})
@example(value={"durable": {"\ud800": {build.EPOCH: [[1, 3]]}}, "rejected": []})
@example(value={"durable": {}, "rejected": [{"line": "a" * 64, "code": "\ud800", "reason": "\0"}]})
def test_whatever_is_a_receipt_the_buffer_can_settle(
    buffer: SqliteBuffer, value: dict[str, Any]
) -> None:
    odd = {"v": 1, "gateway_id": build.SIGNER.gateway_id, "issued_ms": 1} | value
    payload = seal(canonical.dump(odd), RECEIPT_DOMAIN, build.CLOUD.sign)
    try:
        receipt = decode_receipt(payload, build.CLOUD_KEY, verify_ed25519)
    except WireError:
        return

    settled = asyncio.run(buffer.settle(receipt, []))

    assert settled.forgotten == 0
