"""The order of bytes and words on the bus."""

import struct
from collections.abc import Sequence

from gridtokenx_agent.registers.spec import WordOrder


def to_bytes(words: Sequence[int], order: WordOrder) -> bytes:
    """Return the bytes of *words*, most significant first."""
    return struct.pack(f">{len(words)}H", *_arranged(words, order))


def to_words(data: bytes, order: WordOrder) -> tuple[int, ...]:
    """Return *data*, most significant byte first, as words in bus order."""
    return _arranged(struct.unpack(f">{len(data) // 2}H", data), order)


def _arranged(words: Sequence[int], order: WordOrder) -> tuple[int, ...]:
    """Swap words and bytes as *order* says; doing it twice changes nothing."""
    if order == "ABCD":
        return tuple(words)
    if order in ("CDAB", "DCBA"):
        words = tuple(reversed(words))
    if order in ("BADC", "DCBA"):
        words = tuple((word & 0xFF) << 8 | word >> 8 for word in words)
    return tuple(words)
