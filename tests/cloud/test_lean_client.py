"""The short way of a message through the client and paho's own are one."""

from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gridtokenx_cloud.adapters.mqtt.client import LeanClient, read_usual

PUBLISH = 0x30
QOS_1 = 0x02
topics = st.text(st.characters(codec="ascii"), min_size=1, max_size=80)


def publish(name: bytes, packet_id: int, payload: bytes, properties: bytes = b"\0") -> bytes:
    """Return what follows the fixed header of an MQTT 5 PUBLISH."""
    return b"".join(
        (len(name).to_bytes(2, "big"), name, packet_id.to_bytes(2, "big"), properties, payload)
    )


@given(topics, st.integers(1, 65_535), st.binary(max_size=300), st.sampled_from([0, 0x08, 0x09]))
def test_the_usual_message_is_read_whole_whatever_its_other_flags(
    name: str, packet_id: int, payload: bytes, flags: int
) -> None:
    packet = publish(name.encode(), packet_id, payload)

    assert read_usual(PUBLISH | QOS_1 | flags, packet) == (name, packet_id, payload)


def test_what_is_unusual_is_left_to_paho() -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.MessageExpiryInterval = 60
    packed: bytes = properties.pack()  # type: ignore[no-untyped-call]
    plain = publish(b"a/b", 7, b"x")

    assert read_usual(PUBLISH, plain) is None
    assert read_usual(PUBLISH | 0x04, plain) is None
    assert read_usual(PUBLISH | QOS_1, publish(b"\xff\xfe", 7, b"x")) is None
    assert read_usual(PUBLISH | QOS_1, publish(b"a", 7, b"x", packed)) is None


@given(st.binary(max_size=40))
def test_no_bytes_end_the_reader(packet: bytes) -> None:
    found = read_usual(PUBLISH | QOS_1, packet)

    assert found is None or publish(found[0].encode(), *found[1:]) == packet


def test_the_methods_that_are_overridden_are_still_the_ones_paho_calls() -> None:
    base = LeanClient.__mro__[1]

    assert hasattr(base, "_create_socket")
    assert hasattr(base, "_handle_publish")
