"""The four packets that make up nearly all of a worker's traffic, read and written; pure.

MQTT 5 (OASIS, 2019): PUBLISH of QoS 1 without properties (3.3) and PUBACK (3.4), both ways. All
others, and these where they are malformed or not here whole, are left to the MQTT library.
"""

_PUBLISH = 0x32
_DUP_AND_RETAIN = 0x09
_PUBACK = 0x40
_LENGTH_BYTES = 4
_HIGHEST_CODE_OF_SUCCESS = 0x7F

Message = tuple[str, int, bytes, int]
"""Topic, packet id, payload, and the place of the next packet."""


def is_usual(data: bytes, start: int) -> bool:
    """Return whether the packet at *start* is one of those kinds, as far as it is here."""
    return start < len(data) and data[start] & ~_DUP_AND_RETAIN in (_PUBLISH, _PUBACK)


def read_message(data: bytes, start: int) -> Message | None:
    """Return the message at *start*; None for any other packet, a malformed one, or a part."""
    if start >= len(data) or data[start] & ~_DUP_AND_RETAIN != _PUBLISH:
        return None
    place, end = _span(data, start)
    topic_at = place + 2
    topic_end = topic_at + int.from_bytes(data[place:topic_at], "big")
    body = topic_end + 3
    if not topic_at < body <= end <= len(data) or data[topic_end + 2] != 0:
        return None
    name = data[topic_at:topic_end]
    if not name.isascii():
        return None
    packet_id = int.from_bytes(data[topic_end : topic_end + 2], "big")
    return name.decode("ascii"), packet_id, data[body:end], end


def read_acknowledgement(data: bytes, start: int) -> tuple[int, bool, int] | None:
    """Return packet id, whether the broker took the message, and the place of the next packet."""
    if start >= len(data) or data[start] != _PUBACK:
        return None
    place, end = _span(data, start)
    if not place + 2 <= end <= len(data):
        return None
    code = data[place + 2] if end > place + 2 else 0
    packet_id = int.from_bytes(data[place : place + 2], "big")
    return packet_id, code <= _HIGHEST_CODE_OF_SUCCESS, end


def write_message(topic: str, packet_id: int, payload: bytes) -> bytes:
    """Return a PUBLISH of QoS 1 without properties."""
    name = topic.encode()
    return b"".join(
        (
            bytes((_PUBLISH,)),
            _length(len(name) + len(payload) + 5),
            len(name).to_bytes(2, "big"),
            name,
            packet_id.to_bytes(2, "big"),
            b"\0",
            payload,
        )
    )


def write_acknowledgement(packet_id: int) -> bytes:
    """Return a PUBACK of success."""
    return bytes((_PUBACK, 2)) + packet_id.to_bytes(2, "big")


def _span(data: bytes, start: int) -> tuple[int, int]:
    """Return where the packet at *start* goes on after its length, and where it ends.

    (0, -1), which no packet has, where the length is malformed or cut off.
    """
    length = 0
    for at, byte in enumerate(data[start + 1 : start + 1 + _LENGTH_BYTES]):
        length |= (byte & 0x7F) << 7 * at
        if byte < 0x80:
            place = start + 2 + at
            return place, place + length
    return 0, -1


def _length(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
