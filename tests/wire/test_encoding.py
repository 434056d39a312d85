"""Any record survives the way there and back; any other bytes are refused."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_wire import base58
from gridtokenx_wire.encoding import (
    MAX_COUNT,
    _decode,
    encode,
    encode_line,
    join_lines,
    parse_line,
    split_lines,
)
from gridtokenx_wire.errors import BadTopicError, MalformedLineError, WireError
from gridtokenx_wire.receipt import Receipt, decode_receipt, encode_receipt
from gridtokenx_wire.record import (
    FIRST_PREV,
    ClockQuality,
    LiveValues,
    Quality,
    SlotRecord,
    Stamp,
)
from gridtokenx_wire.signing import (
    RECORD_DOMAIN,
    open_sealed,
    signer,
    verify_ed25519,
)
from gridtokenx_wire.slot_line import read_slot
from gridtokenx_wire.state import GatewayState, decode_state, encode_state
from gridtokenx_wire.topics import Channel, parse_topic, topic

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
TOKEN = base58.encode_key(bytes(range(1, 33)))

counts = st.integers(0, MAX_COUNT)
optional_values = st.one_of(st.none(), st.integers(-MAX_COUNT, MAX_COUNT))
stamps = st.builds(
    Stamp,
    meter_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    epoch=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    seq=st.integers(1, MAX_COUNT),
    boot_id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    mono_ms=counts,
    wall_ms=counts,
    clock=st.sampled_from(ClockQuality),
)
slots = st.builds(
    SlotRecord,
    stamp=stamps,
    interval_s=st.integers(1, 86_400),
    import_wh=counts,
    export_wh=counts,
    token=st.binary(min_size=32, max_size=32).map(base58.encode_key),
    prev=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    flags=st.integers(0, 63).map(Quality),
    live=st.builds(
        LiveValues,
        active_power_w=optional_values,
        voltage_mv=optional_values,
        current_ma=optional_values,
        frequency_mhz=optional_values,
        power_factor_milli=optional_values,
    ),
)

ODDITIES = (b"-0", b"00", b" ", b"1e3", b"1.0", b'","', b"\n", b'"v":1,', b"}", "\u0663".encode())

SLOT = SlotRecord(
    stamp=Stamp(
        meter_id="HOUSE-17",
        epoch="0" * 16,
        seq=1,
        boot_id="0" * 32,
        mono_ms=1,
        wall_ms=1,
        clock=ClockQuality.HOLDOVER,
    ),
    interval_s=900,
    import_wh=1,
    export_wh=1,
    token=TOKEN,
    prev=FIRST_PREV,
)


@given(slots)
def test_every_slot_record_reads_back_as_it_was_written(record: SlotRecord) -> None:
    line = encode_line(record, signer(KEY))

    assert parse_line(line) == record
    assert encode(record) == open_sealed(line, RECORD_DOMAIN, PUBLIC, verify_ed25519)


@given(slots, st.data())
def test_a_line_with_any_byte_changed_is_refused(record: SlotRecord, data: st.DataObject) -> None:
    line = bytearray(encode_line(record, signer(KEY)))
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(WireError):
        open_sealed(bytes(line), RECORD_DOMAIN, PUBLIC, verify_ed25519)


def _read_in_full(body: bytes) -> object:
    try:
        return _decode(body)
    except WireError as exc:
        return type(exc)


@given(slots)
def test_the_quick_reader_reads_every_usual_slot_as_the_full_one(record: SlotRecord) -> None:
    body = encode(record)

    assert read_slot(body) in (None, _decode(body))


@given(slots, st.data())
def test_the_quick_reader_takes_nothing_that_the_full_one_refuses(
    record: SlotRecord, data: st.DataObject
) -> None:
    body = encode(record)
    at = data.draw(st.integers(0, len(body)))
    cut = data.draw(st.integers(0, 3))
    odd = data.draw(st.sampled_from(ODDITIES) | st.binary(max_size=3))
    changed = body[:at] + odd + body[at + cut :]

    try:
        quick: object = read_slot(changed)
    except MalformedLineError as exc:
        quick = type(exc)

    assert quick in (None, _read_in_full(changed))


@pytest.mark.parametrize("count", [0, 9, 10**15 - 1, 10**15, MAX_COUNT])
def test_both_readers_agree_on_numbers_at_the_edge(count: int) -> None:
    body = encode(SLOT._replace(export_wh=count, live=LiveValues(active_power_w=-count)))

    assert read_slot(body) == (None if count >= 10**15 else _decode(body))


def test_an_ordinary_line_is_read_by_the_quick_reader() -> None:
    live = LiveValues(active_power_w=-1_200, voltage_mv=230_100, frequency_mhz=49_990)

    assert read_slot(encode(SLOT._replace(live=live, flags=Quality.LATE_SLOT))) is not None


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_and_never_crash_the_reader(noise: bytes) -> None:
    with pytest.raises(WireError):
        parse_line(noise)


def test_a_gateway_cannot_write_what_the_cloud_would_refuse() -> None:
    with pytest.raises(MalformedLineError, match="export_wh"):
        encode(SLOT._replace(export_wh=-1))
    with pytest.raises(MalformedLineError, match="meter_id"):
        encode(SLOT._replace(stamp=SLOT.stamp._replace(meter_id="A/B")))


def test_lines_that_travel_together_come_apart_unchanged() -> None:
    lines = [encode_line(SLOT._replace(export_wh=n), signer(KEY)) for n in range(100)]

    assert split_lines(join_lines(lines)) == lines


@pytest.mark.parametrize("payload", [b"", b"\n", b"x\n" * 101])
def test_a_message_without_lines_or_with_too_many_is_refused(payload: bytes) -> None:
    with pytest.raises(MalformedLineError, match="1 to 100"):
        split_lines(payload)


@given(st.binary(min_size=32, max_size=32))
def test_a_key_reads_back_from_base58(key: bytes) -> None:
    assert base58.decode_key(base58.encode_key(key)) == key


@pytest.mark.parametrize("text", ["", "1" * 31, "1" * 33, "l" * 40, "z" * 44, "0" * 43])
def test_text_that_is_no_32_byte_key_is_refused(text: str) -> None:
    with pytest.raises(MalformedLineError):
        base58.decode_key(text)


def test_a_topic_names_the_gateway_and_the_channel_both_ways() -> None:
    gateway_id = base58.encode_key(PUBLIC)

    assert parse_topic(topic(gateway_id, Channel.READINGS)) == (gateway_id, Channel.READINGS)


@pytest.mark.parametrize(
    "text",
    [
        "gridtokenx/v1/+/readings",
        "gridtokenx/v1/#",
        f"gridtokenx/v1/{TOKEN}/readings/more",
        f"gridtokenx/v2/{TOKEN}/readings",
        f"x/gridtokenx/v1/{TOKEN}/readings",
        f"gridtokenx/v1/{TOKEN}/wallet",
        f"gridtokenx/v1/{TOKEN}",
    ],
)
def test_a_topic_outside_the_contract_is_refused(text: str) -> None:
    with pytest.raises(BadTopicError):
        parse_topic(text)


def test_a_receipt_of_another_cloud_is_refused() -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    receipt = Receipt(gateway_id=TOKEN, issued_ms=1)

    with pytest.raises(WireError):
        decode_receipt(encode_receipt(receipt, signer(stranger)), PUBLIC, verify_ed25519)


def test_a_record_line_never_passes_for_a_receipt() -> None:
    with pytest.raises(WireError):
        decode_receipt(encode_line(SLOT, signer(KEY)), PUBLIC, verify_ed25519)


def test_a_receipt_covers_exactly_the_ranges_it_names() -> None:
    receipt = Receipt(gateway_id=TOKEN, issued_ms=1, durable={"M": {"e": ((2, 4), (7, 7))}})

    covered = [seq for seq in range(1, 9) if receipt.covers("M", "e", seq)]

    assert covered == [2, 3, 4, 7]
    assert not receipt.covers("M", "f", 3)
    assert not receipt.covers("N", "e", 3)


def test_a_birth_certificate_reads_back() -> None:
    state = GatewayState(state="online", boot_id="0" * 32, since_ms=5, software="gtx-agent 0.1.0")

    assert decode_state(encode_state(state)) == state
