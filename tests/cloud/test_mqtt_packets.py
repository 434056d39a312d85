"""The packets that are read and written the short way are those of MQTT 5."""

from hypothesis import example, given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gridtokenx_cloud.adapters.mqtt.packets import (
    is_usual,
    read_acknowledgement,
    read_message,
    write_acknowledgement,
    write_message,
)

PUBLISH = 0x30
QOS_1 = 0x02
payloads = st.binary(max_size=300) | st.integers(16_300, 16_500).map(bytes)
topics = st.text(st.characters(codec="ascii"), min_size=1, max_size=80)


def publish(
    name: bytes, packet_id: int, payload: bytes, properties: bytes = b"\0", flags: int = QOS_1
) -> bytes:
    """Return an MQTT 5 PUBLISH."""
    body = b"".join(
        (len(name).to_bytes(2, "big"), name, packet_id.to_bytes(2, "big"), properties, payload)
    )
    return bytes([PUBLISH | flags]) + length(len(body)) + body


def length(number: int) -> bytes:
    """Return a remaining length: seven bits a byte, the lowest first."""
    digits = [number & 0x7F]
    while number := number >> 7:
        digits[-1] |= 0x80
        digits.append(number & 0x7F)
    return bytes(digits)


@given(topics, st.integers(1, 65_535), payloads, st.sampled_from([0, 0x01, 0x08, 0x09]))
def test_the_usual_message_is_read_whole_whatever_its_other_flags(
    name: str, packet_id: int, payload: bytes, flags: int
) -> None:
    packet = publish(name.encode(), packet_id, payload, flags=QOS_1 | flags)
    before, after = b"\xd0\x00", b"\x32\x7f"

    found = read_message(before + packet + after, len(before))

    assert found == (name, packet_id, payload, len(before + packet))


@given(topics, payloads, st.data())
def test_part_of_a_message_is_left_until_all_of_it_is_here(
    name: str, payload: bytes, data: st.DataObject
) -> None:
    packet = publish(name.encode(), 7, payload)
    cut = data.draw(st.integers(0, len(packet) - 1))

    assert read_message(packet[:cut], 0) is None


def test_what_is_unusual_is_left_to_paho() -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.MessageExpiryInterval = 60
    packed: bytes = properties.pack()  # type: ignore[no-untyped-call]

    assert read_message(b"\xd0\x00", 0) is None
    assert read_message(publish(b"a/b", 7, b"x", flags=0), 0) is None
    assert read_message(publish(b"a/b", 7, b"x", flags=0x04), 0) is None
    assert read_message(publish(b"\xff\xfe", 7, b"x"), 0) is None
    assert read_message(publish(b"a", 7, b"x", packed), 0) is None
    assert read_message(b"\x32\xff\xff\xff\xff\x01" + b"\0" * 40, 0) is None


@given(st.binary(max_size=40))
@example(b"\x00\x09abc")
def test_no_bytes_end_the_reader(body: bytes) -> None:
    packet = b"\x32" + length(len(body)) + body

    found = read_message(packet, 0)

    assert found is None or publish(found[0].encode(), *found[1:3]) == packet


@given(topics, st.integers(1, 65_535), payloads)
def test_a_message_is_written_as_the_standard_has_it(
    name: str, packet_id: int, payload: bytes
) -> None:
    assert write_message(name, packet_id, payload) == publish(name.encode(), packet_id, payload)


def test_an_acknowledgement_says_of_which_message_and_whether_it_was_taken() -> None:
    plain = write_acknowledgement(513)

    assert plain == b"\x40\x02\x02\x01"
    assert read_acknowledgement(b"xx" + plain, 2) == (513, True, 6)
    assert read_acknowledgement(b"\x40\x03\x02\x01\x10", 0) == (513, True, 5)
    assert read_acknowledgement(b"\x40\x04\x02\x01\x87\x00", 0) == (513, False, 6)


@given(st.binary(max_size=8), st.integers(0, 9))
@example(b"\x40\x01\x02", 0)
@example(b"\x40\x80\x80\x80\x80\x01", 0)
def test_what_is_no_acknowledgement_is_left_to_paho(data: bytes, start: int) -> None:
    found = read_acknowledgement(data, start)

    assert found is None or (data[start] == 0x40 and start + 4 <= found[2] <= len(data))


def test_a_packet_of_the_usual_kinds_is_known_by_its_first_byte() -> None:
    assert is_usual(b"\x32", 0)
    assert is_usual(b"\xd0\x3b", 1)
    assert is_usual(b"\x40", 0)
    assert not is_usual(b"\xd0", 0)
    assert not is_usual(b"\x32", 1)
