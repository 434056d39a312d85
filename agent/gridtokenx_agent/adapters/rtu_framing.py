"""Finds the one true answer in what a serial bus delivers: echoes, noise and foreign frames."""

from dataclasses import dataclass
from typing import Final

SMALLEST_FRAME: Final = 5
"""Unit, function, one byte, CRC."""
_EXCEPTION: Final = 0x80


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc16(data: bytes) -> bytes:
    """Return the two CRC bytes of an RTU frame, low byte first.

    Source: Modbus over Serial Line V1.02, section 6.2.2.
    """
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc.to_bytes(2, "little")


def rtu_frame(unit: int, pdu: bytes) -> bytes:
    """Wrap *pdu* for *unit*."""
    body = bytes((unit,)) + pdu
    return body + crc16(body)


@dataclass(frozen=True, slots=True)
class RtuRequest:
    """What an answer must look like to belong to this request."""

    frame: bytes

    @classmethod
    def build(cls, _number: int, unit: int, pdu: bytes) -> "RtuRequest":
        """Return the request; a serial one has no number."""
        return cls(rtu_frame(unit, pdu))

    def pdu_of(self, answer: bytes) -> bytes:
        """Return what is in the frame of an answer: the function and what follows it."""
        return answer[1:-2]

    @property
    def byte_count(self) -> int:
        """Data bytes in the answer to a register read."""
        return 2 * int.from_bytes(self.frame[4:6])

    def find_answer(self, received: bytes) -> bytes | None:
        """Return the whole, CRC-true answer within *received*, or None while there is none.

        The unit, the function and the byte count must be those asked for, so that neither the
        echo of the request nor a frame of another meter, before it or after it, is taken for
        the answer. An exception of the right unit and function is an answer, too.
        """
        received = received.removeprefix(self.frame)
        unit, function = self.frame[0], self.frame[1]
        data_head = bytes((unit, function, self.byte_count))
        exception_head = bytes((unit, function | _EXCEPTION))
        for start in range(len(received) - SMALLEST_FRAME + 1):
            if received.startswith(data_head, start):
                length = SMALLEST_FRAME + self.byte_count
            elif received.startswith(exception_head, start):
                length = SMALLEST_FRAME
            else:
                continue
            frame = received[start : start + length]
            if len(frame) == length and crc16(frame[:-2]) == frame[-2:]:
                return frame
        return None


def frame_of_another(received: bytes, unit: int) -> bool:
    """Return whether *received* holds a whole, CRC-true answer of another meter than *unit*."""
    for start in range(len(received) - SMALLEST_FRAME + 1):
        sender, function, size = received[start : start + 3]
        length = SMALLEST_FRAME + (0 if function & _EXCEPTION else size)
        frame = received[start : start + length]
        if sender != unit and len(frame) == length and crc16(frame[:-2]) == frame[-2:]:
            return True
    return False
