"""A buffered socket behaves as the one below it, in fewer system calls."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from gridtokenx_cloud.adapters.mqtt.buffered_socket import BufferedSocket


@pytest.fixture
def ends() -> Iterator[tuple[BufferedSocket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    buffered = BufferedSocket(near)
    try:
        yield buffered, far
    finally:
        buffered.close()
        far.close()


def test_bytes_come_in_order_in_whatever_pieces_they_are_asked_for(
    ends: tuple[BufferedSocket, socket.socket],
) -> None:
    near, far = ends
    far.sendall(b"abcdef")

    first = near.recv(1)
    left = near.pending()
    rest = near.recv(100)

    assert (first, left, rest, near.pending()) == (b"a", 5, b"bcdef", 0)


def test_nothing_there_is_said_as_a_socket_says_it_and_the_end_is_no_bytes(
    ends: tuple[BufferedSocket, socket.socket],
) -> None:
    near, far = ends

    with pytest.raises(BlockingIOError):
        near.recv(1)
    far.close()

    assert near.recv(1) == b""


def test_what_is_written_goes_out_whole_and_in_order_at_a_flush(
    ends: tuple[BufferedSocket, socket.socket],
) -> None:
    near, far = ends
    far.setblocking(False)
    near.send(b"one")
    near.send(b"two")
    with pytest.raises(BlockingIOError):
        far.recv(10)

    done = near.flush()

    assert done
    assert near.unsent == 0
    assert far.recv(10) == b"onetwo"


def test_a_peer_that_takes_nothing_fills_the_buffer_and_loses_nothing(
    ends: tuple[BufferedSocket, socket.socket],
) -> None:
    near, far = ends
    piece = bytes(range(256)) * 256
    sent = 0
    with suppress(BlockingIOError):
        for _ in range(1_000):
            sent += near.send(piece)
            near.flush()

    got = bytearray()
    while len(got) < sent:
        near.flush()
        got += far.recv(1 << 16)

    assert sent < 1_000 * len(piece)
    assert bytes(got) == piece * (sent // len(piece))


def test_closing_sends_what_was_written_before(
    ends: tuple[BufferedSocket, socket.socket],
) -> None:
    near, far = ends
    near.send(b"farewell")

    near.close()

    assert far.recv(100) == b"farewell"
    assert far.recv(100) == b""
