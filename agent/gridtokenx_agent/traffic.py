"""What is on its way to the broker, how fast it may go, and which rows must travel alone."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gridtokenx_agent.ports import Waiting
from gridtokenx_wire.receipt import Ranges, Receipt

LINES_PER_MESSAGE = 50
LONGEST_PAUSE_S = 120
SLOW_ACK_MS = 1000
"""A broker that takes longer gets fewer messages at once, or a new slot waits behind a backlog."""
LONGEST_HOLD_MS = 60_000
FIRST_ASIDE_MS = 60_000
LONGEST_ASIDE_MS = 6 * 3_600_000
MOST_REPLIES = 32


def pause_s(attempts: int) -> int:
    """Return the longest wait before the next connection: 1, 2, 4 ... 120 s."""
    return min(1 << min(max(attempts - 1, 0), 10), LONGEST_PAUSE_S)


def as_one(receipts: Sequence[Receipt]) -> Receipt:
    """Return one receipt that says what all of *receipts* of one gateway say; at least one."""
    durable: dict[str, dict[str, Ranges]] = {}
    for receipt in receipts:
        for meter_id, epochs in receipt.durable.items():
            known = durable.setdefault(meter_id, {})
            for epoch, ranges in epochs.items():
                known[epoch] = (*known.get(epoch, ()), *ranges)
    return Receipt(
        gateway_id=receipts[0].gateway_id,
        issued_ms=max(receipt.issued_ms for receipt in receipts),
        durable=durable,
        rejected=tuple(entry for receipt in receipts for entry in receipt.rejected),
    )


class Pace:
    """A bucket of lines that fills steadily; a message may leave while there is one in it.

    Attributes:
        longest: Most lines of a message: a quarter of a second's, or the slot behind it waits.
    """

    def __init__(self, lines_per_s: int) -> None:
        self.longest = min(LINES_PER_MESSAGE, max(1, lines_per_s // 4))
        self._lines_per_s = lines_per_s
        self._milli_lines = lines_per_s * 1000
        self._at_ms: int | None = None

    def wait_ms(self, now_ms: int) -> int:
        """Return how long the next message has to wait; 0 = it may leave."""
        passed_ms = 0 if self._at_ms is None else max(0, now_ms - self._at_ms)
        self._at_ms = now_ms
        full = self._lines_per_s * 1000
        self._milli_lines = min(full, self._milli_lines + passed_ms * self._lines_per_s)
        return 0 if self._milli_lines > 0 else 1 - self._milli_lines // self._lines_per_s

    def take(self, lines: int) -> None:
        """Count a message that left."""
        self._milli_lines -= lines * 1000


@dataclass(frozen=True, slots=True)
class Message:
    """Rows that travel together; none = it carried something else."""

    row_ids: tuple[int, ...]
    sent_ms: int


@dataclass(slots=True)
class Traffic:
    """The rows of one publisher that the buffer must not hand out again now.

    A message that was refused, or under way when the connection broke, may hold one row that
    the broker cannot stand. Its rows then travel alone, one at a time: the others get through,
    and the one that comes to grief alone is set aside ever longer, and never dropped.

    Attributes:
        taken: The broker acknowledged them; the buffer does not know yet.
        refused: The broker refused them; the buffer does not know yet.
        alone: Rows that travel alone, and how often each came to grief so.
        aside: Rows not tried before that boot time.
        held_until_ms: Nothing is sent before it, as the broker refuses.
    """

    in_flight: dict[int, Message] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    alone: dict[int, int] = field(default_factory=dict)
    aside: dict[int, int] = field(default_factory=dict)
    held_until_ms: int = 0
    _refusals: int = 0
    _most: int = 1_000_000

    def busy(self, now_ms: int) -> set[int]:
        """Return the rows that are not to be sent now."""
        flying = self.flying()
        self.aside = {row: until for row, until in self.aside.items() if until > now_ms}
        lone = self.alone.keys() if self.alone.keys() & flying else ()
        return flying | self.taken | self.refused | self.aside.keys() | set(lone)

    def flying(self) -> set[int]:
        """Return the rows the broker has not answered for."""
        return {row_id for message in self.in_flight.values() for row_id in message.row_ids}

    def known(self) -> set[int]:
        """Return every row that left and that the buffer may not know to have left."""
        return self.flying() | self.taken | self.refused | self.aside.keys()

    def window(self, limit: int) -> int:
        """Return how many messages may be under way, of at most *limit*."""
        return max(1, min(limit, self._most))

    def group(self, rows: Sequence[Waiting], max_bytes: int) -> list[Waiting]:
        """Return those of *rows*, the most urgent first, that make up the next message.

        Within it they stand in the order they were recorded in.
        """
        together = [row for row in rows if row.row_id not in self.alone] or list(rows[:1])
        size = 0
        for count, row in enumerate(together):
            size += len(row.line) + 1
            if count and size > max_bytes:
                together = together[:count]
                break
        return sorted(together, key=lambda row: row.row_id)

    def sent(self, message_id: int, row_ids: tuple[int, ...], now_ms: int) -> None:
        """Note that a message left."""
        self.in_flight[message_id] = Message(row_ids, now_ms)

    def acked(self, message_id: int, limit: int, now_ms: int) -> Message | None:
        """Note that the broker took a message; None when it is not one of this connection."""
        message = self.in_flight.pop(message_id, None)
        if message is None:
            return None
        slow = now_ms - message.sent_ms > SLOW_ACK_MS
        within = self.window(limit)
        self._most = within // 2 if slow else within + 1
        self._refusals = 0
        self.taken.update(message.row_ids)
        for row_id in message.row_ids:
            self.alone.pop(row_id, None)
        return message

    def turned_down(self, message_id: int, now_ms: int) -> Message | None:
        """Note that the broker refused a message, and hold the others back for a while."""
        message = self.in_flight.pop(message_id, None)
        if message is None:
            return None
        self.refused.update(message.row_ids)
        for row_id in message.row_ids:
            self.alone.setdefault(row_id, 0)
        if message.row_ids and now_ms >= self.held_until_ms:
            self.held_until_ms = now_ms + min(1000 << min(self._refusals, 6), LONGEST_HOLD_MS)
            self._refusals += 1
        return message

    def lost(self, now_ms: int) -> list[int]:
        """Note that the connection broke; return the rows that are set aside because of it."""
        culprits = [
            message.row_ids[0]
            for message in self.in_flight.values()
            if len(message.row_ids) == 1 and message.row_ids[0] in self.alone
        ]
        # Those that never came to grief alone may join the others again.
        struck = {row_id: times for row_id, times in self.alone.items() if times}
        self.alone = dict.fromkeys(self.flying(), 0) | struck
        for row_id in culprits:
            self.alone[row_id] += 1
            pause_ms = FIRST_ASIDE_MS << min(self.alone[row_id] - 1, 20)
            self.aside[row_id] = now_ms + min(pause_ms, LONGEST_ASIDE_MS)
        self.in_flight.clear()
        self.taken.clear()
        self.refused.clear()
        return culprits


@dataclass(slots=True, kw_only=True)
class UplinkCounts:
    """What happened since the start."""

    connected: int = 0
    connections: int = 0
    lines: int = 0
    acknowledged: int = 0
    refused: int = 0
    receipts: int = 0
    receipts_ignored: int = 0
    forgotten: int = 0
    dead: int = 0


@dataclass(slots=True)
class Replies:
    """Answers to commands, kept until the broker has taken them."""

    waiting: deque[bytes] = field(default_factory=lambda: deque(maxlen=MOST_REPLIES))
    under_way: dict[int, bytes] = field(default_factory=dict)

    def lost(self) -> None:
        """Send again what the lost connection carried."""
        self.waiting.extendleft(reversed(self.under_way.values()))
        self.under_way.clear()
