"""A socket that is read and written in large pieces.

paho reads a packet's header byte by byte and writes each acknowledgement by itself; each of those
system calls also lets the other threads in and waits until they give way again.
"""

import ssl
from contextlib import suppress
from socket import socket

_READ_BYTES = 1 << 16
_MOST_UNSENT_BYTES = 1 << 20


class BufferedSocket:
    """What paho needs of a socket; `flush` sends what was written since.

    Args:
        raw: Connected, with TLS where there is to be any.
    """

    def __init__(self, raw: socket) -> None:
        self._raw = raw
        self._read = b""
        self._place = 0
        self._unsent = bytearray()

    def recv(self, size: int) -> bytes:
        """Return up to *size* bytes; raises as a socket does that does not block."""
        if self._place == len(self._read):
            self._read, self._place = self._raw.recv(_READ_BYTES), 0
        start = self._place
        data = self._read[start : start + size]
        self._place = start + len(data)
        return data

    def fill(self) -> bool:
        """Read what is there, behind what is left; an error or the end is met by the next `recv`.

        False when nothing is there, and when so much is left that more of it is not one packet's.
        """
        left = self._read[self._place :]
        if len(left) > _READ_BYTES:
            return False
        try:
            more = self._raw.recv(_READ_BYTES)
        except OSError:
            return False
        self._read, self._place = left + more, 0
        return bool(more)

    def ahead(self) -> tuple[bytes, int]:
        """Return bytes that are here, and from which place on they are not taken yet."""
        return self._read, self._place

    def skip_to(self, place: int) -> None:
        """Take what `ahead` showed, up to *place*."""
        self._place = place

    def pending(self) -> int:
        """Return how many bytes are here without a look at the network."""
        left = len(self._read) - self._place
        return left + (self._raw.pending() if isinstance(self._raw, ssl.SSLSocket) else 0)

    def send(self, data: bytes | bytearray) -> int:
        """Keep *data* for the next `flush`; raises BlockingIOError when too much waits already."""
        if len(self._unsent) > _MOST_UNSENT_BYTES and not self.flush():
            raise BlockingIOError
        self._unsent += data
        return len(data)

    @property
    def unsent(self) -> int:
        """How many bytes wait to be sent."""
        return len(self._unsent)

    def flush(self) -> bool:
        """Send what the network takes now; return whether nothing is left."""
        try:
            while self._unsent:
                sent = self._raw.send(self._unsent)
                del self._unsent[:sent]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True

    def setblocking(self, flag: bool) -> None:
        """See `socket.setblocking`."""
        self._raw.setblocking(flag)

    def fileno(self) -> int:
        """See `socket.fileno`."""
        return self._raw.fileno()

    def close(self) -> None:
        """Send the farewell if it goes at once, and close."""
        with suppress(OSError):
            self.flush()
        self._raw.close()
