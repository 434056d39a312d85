"""The client takes what has come and sends what waits, as the broker allows it."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from paho.mqtt.client import _ConnectionState  # type: ignore[attr-defined]
from paho.mqtt.enums import CallbackAPIVersion

from gridtokenx_cloud.adapters.mqtt.buffered_socket import BufferedSocket
from gridtokenx_cloud.adapters.mqtt.client import MAX_AT_ONCE, LeanClient
from gridtokenx_cloud.adapters.mqtt.packets import (
    read_acknowledgement,
    read_message,
    write_acknowledgement,
    write_message,
)

PING_ANSWER = b"\xd0\x00"
NOT_AUTHORIZED = 0x87


@dataclass
class Line:
    """A client that is connected, and the broker's end of its socket."""

    client: LeanClient
    far: socket.socket
    got: list[tuple[str, int, bytes]] = field(default_factory=list)

    def sent(self) -> bytes:
        """Return what has reached the broker since the last look."""
        assert self.client.buffered is not None
        self.client.buffered.flush()
        try:
            return self.far.recv(1 << 20)
        except BlockingIOError:
            return b""

    def sent_messages(self) -> list[tuple[int, bytes]]:
        """Return (packet id, payload) of each message that has reached it."""
        data, place, found = self.sent(), 0, []
        while (message := read_message(data, place)) is not None:
            _, packet_id, payload, place = message
            found.append((packet_id, payload))
        assert place == len(data)
        return found


@pytest.fixture
def line() -> Iterator[Line]:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    client = LeanClient(CallbackAPIVersion.VERSION2, manual_ack=True)
    client.buffered = BufferedSocket(near)
    client._state = _ConnectionState.MQTT_CS_CONNECTED
    made = Line(client, far)
    client.on_usual_message = lambda *found: made.got.append(found)
    try:
        yield made
    finally:
        client.buffered.close()
        far.close()


def test_messages_come_in_order_until_one_that_paho_has_to_read(line: Line) -> None:
    line.far.sendall(write_message("a", 1, b"one") + write_message("b", 2, b"two") + PING_ANSWER)

    took = line.client.take_usual()

    assert took
    assert line.got == [("a", 1, b"one"), ("b", 2, b"two")]
    assert line.client.buffered is not None
    assert line.client.buffered.pending() == len(PING_ANSWER)
    assert not line.client.take_usual()


def test_a_message_in_two_pieces_comes_once_both_are_here(line: Line) -> None:
    packet = write_message("a", 1, bytes(100_000))
    line.far.setblocking(True)
    line.far.sendall(packet[:50_000])
    early = line.client.take_usual()

    line.far.sendall(packet[50_000:])
    late = line.client.take_usual()

    assert (early, late) == (False, True)
    assert line.got == [("a", 1, bytes(100_000))]


def test_what_is_far_longer_than_a_message_is_not_gathered_here(line: Line) -> None:
    line.far.setblocking(True)
    line.far.sendall(b"\x32\xff\xff\xff\x7f" + bytes(100_000))
    assert line.client.buffered is not None

    for _ in range(10):
        line.client.take_usual()

    assert line.client.buffered.pending() <= 2 << 16


def test_a_broker_that_sends_without_end_keeps_nothing_else_waiting(line: Line) -> None:
    line.far.setblocking(True)
    line.far.sendall(write_message("a", 1, b"x") * (MAX_AT_ONCE + 1))

    first, second = line.client.take_usual(), line.client.take_usual()

    assert (first, second) == (MAX_AT_ONCE, 1)


def test_a_connection_that_is_lost_with_much_unsent_breaks_nobody_who_sends(line: Line) -> None:
    assert line.client.buffered is not None
    line.client.buffered.send(bytes(1 << 21))
    line.far.close()

    taken = line.client.send("t", b"x")
    line.client.acknowledge(7, qos=1)
    line.client.send_waiting()

    assert taken
    assert line.client.unconfirmed == 1


def test_no_more_are_on_their_way_than_the_broker_allows(line: Line) -> None:
    line.client.allow_unconfirmed(2)
    for number in range(4):
        assert line.client.send("t", b"%d" % number)
    first = line.sent_messages()

    line.far.sendall(write_acknowledgement(first[0][0]))
    line.client.take_usual()
    second = line.sent_messages()

    assert [payload for _, payload in first] == [b"0", b"1"]
    assert [payload for _, payload in second] == [b"2"]
    assert line.client.unconfirmed == 3
    assert len({packet_id for packet_id, _ in first + second}) == 3


def test_a_message_the_broker_refuses_is_told_of_and_waited_for_no_more(line: Line) -> None:
    refusals: list[None] = []
    line.client.on_refused = lambda: refusals.append(None)
    line.client.send("t", b"x")
    ((packet_id, _),) = line.sent_messages()

    answer = b"\x40\x03" + packet_id.to_bytes(2, "big") + bytes((NOT_AUTHORIZED,))
    line.far.sendall(answer)
    line.client.take_usual()

    assert len(refusals) == 1
    assert line.client.unconfirmed == 0


def test_a_message_is_acknowledged_with_its_own_number(line: Line) -> None:
    assert line.client.acknowledge(513, qos=1)

    assert read_acknowledgement(line.sent(), 0) == (513, True, 4)


def test_without_a_connection_nothing_is_acknowledged_or_taken_to_be_sent() -> None:
    client = LeanClient(CallbackAPIVersion.VERSION2, manual_ack=True)

    assert not client.acknowledge(7, qos=1)
    assert not client.send("t", b"x")
    assert not client.take_usual()


def test_what_paho_is_asked_for_of_its_inside_is_still_there() -> None:
    client = LeanClient(CallbackAPIVersion.VERSION2)

    assert hasattr(LeanClient.__mro__[1], "_create_socket")
    assert client._in_packet["command"] == 0
    assert client._mid_generate() == 1
