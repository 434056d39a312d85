"""Readings in, commits out: one transaction per batch, receipts only after it."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from gridtokenx_cloud.errors import StoreRefusedError, TransientError
from gridtokenx_cloud.events import MeterReadingReceived
from gridtokenx_cloud.intake import Intake
from gridtokenx_cloud.opened import OpenedLine
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.ingest import IngestStore
from gridtokenx_cloud.throttle import RejectionBudget, TokenBuckets
from gridtokenx_cloud.verify import Fault, ReadingRules, fault, open_line
from gridtokenx_wire import base58
from gridtokenx_wire.encoding import split_lines
from gridtokenx_wire.errors import BadTopicError, MalformedLineError
from gridtokenx_wire.receipt import encode_receipt
from gridtokenx_wire.signing import Sign, Verify
from gridtokenx_wire.topics import Channel, parse_topic

_log = logging.getLogger(__name__)


class Message(NamedTuple):
    """One message as it came: its topic and its 1 to 100 lines."""

    topic: str
    payload: bytes


@dataclass(slots=True)
class Outcome:
    """What one batch came to; everything it tells of is committed.

    Attributes:
        receipts: (gateway id, signed payload for its `receipts` topic).
        tally: How many lines of the batch were accepted, late, held, rejected, duplicate,
            sample, event, clock, and `rejected:<code>`.
        remarks: How many readings got each remark, such as `chain_gap`.
        credited_wh: Sum of the new credits.
    """

    receipts: list[tuple[str, bytes]] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    credited_wh: int = 0


class IngestService:
    """Verifies lines and makes them durable; knows neither MQTT nor HTTP.

    Args:
        store: Where lines become durable.
        verifier: Ed25519.
        receipts_sign: The cloud's own key.
        rules: Asked before each batch for the limits in force.
        token: What this cloud mints.
        clock: The wall clock.
        former_keys: Gateway -> gateways whose key it replaced and whose lines it may still send.
        buckets: How fast a gateway may send.
        on_commit: Told of each commit, and whether it holds new credits.
        on_sample: Told of each live value.

    Attributes:
        totals: All tallies since the start, remarks as `remark:<name>`.
    """

    def __init__(
        self,
        store: IngestStore,
        verifier: Verify,
        receipts_sign: Sign,
        rules: Callable[[], ReadingRules],
        token: str,
        clock: Clock,
        *,
        former_keys: Callable[[str], Sequence[str]] = lambda gateway_id: (),
        buckets: TokenBuckets | None = None,
        on_commit: Callable[[bool], None] = lambda credited: None,
        on_sample: Callable[[MeterReadingReceived], None] = lambda event: None,
    ) -> None:
        self.totals: Counter[str] = Counter()
        self._rules = rules
        self._former_keys = former_keys
        self._buckets = buckets
        self._kept = RejectionBudget()
        self._counting = threading.Lock()
        self._store = store
        self._verifier = verifier
        self._sign = receipts_sign
        self._token = token
        self._clock = clock
        self._on_commit = on_commit
        self._on_sample = on_sample

    def wait_ms(self, message: Message) -> int:
        """Take the message's lines from its gateway's bucket and return 0, or say how long to wait.

        A message that has to wait is not lost when it is dropped instead: without a receipt its
        gateway keeps it and sends it again.
        """
        if self._buckets is None:
            return 0
        sender, lines = message.topic, message.payload.count(b"\n") + 1
        with self._counting:
            return self._buckets.take(sender, lines, self._clock.now_ms())

    def process(self, messages: Sequence[Message]) -> Outcome:
        """Verify and store what the messages carry; see `settle`."""
        return self.settle([line for message in messages for line in self.open(message)])

    def settle(self, lines: Sequence[OpenedLine]) -> Outcome:
        """Store verified lines in one commit and return the receipts.

        A line that the store or this program cannot take is set aside alone; the others of its
        batch are stored.

        Raises:
            TransientError: Nothing is stored; give the same lines again.
        """
        # Order counts within a gateway only; side by side its lines are judged together.
        lines = sorted(map(self._under_former_key, lines), key=attrgetter("gateway_id"))
        try:
            taken = [self._commit(lines)]
        except TransientError:
            raise
        except Exception as exc:  # noqa: BLE001 - no line, however odd, may stop the others
            _log.warning("ingest_batch_split", extra={"lines": len(lines), "error": repr(exc)})
            taken = [intake for line in lines if (intake := self._commit_alone(line))]
        outcome = Outcome()
        for intake in taken:
            self._tell(intake, outcome)
        return outcome

    def open(self, message: Message) -> list[OpenedLine]:
        """Verify each line of a message; what is none becomes a fault."""
        try:
            gateway_id, channel = parse_topic(message.topic)
        except BadTopicError as exc:
            return [_unaddressed(message, str(exc))]
        if channel is not Channel.READINGS:
            return [_unaddressed(message, f"{message.topic!r} carries no readings")]
        try:
            lines = split_lines(message.payload)
        except MalformedLineError as exc:
            refused = fault("NotCanonical", f"The payload is no readings: {exc}; split it.")
            return [OpenedLine(gateway_id, message.payload, refused)]
        return [self._open_line(gateway_id, line) for line in lines]

    def _open_line(self, gateway_id: str, line: bytes) -> OpenedLine:
        found = open_line(line, gateway_id, base58.decode_key(gateway_id), self._verifier)
        return OpenedLine(gateway_id, line, found)

    def _under_former_key(self, opened: OpenedLine) -> OpenedLine:
        """Look again at a line whose signature failed.

        What a gateway had not sent when its key was replaced is signed with the former one.
        """
        gateway_id, line = opened.gateway_id, opened.line
        if not (isinstance(opened.found, Fault) and opened.found.code == "BadSignature"):
            return opened
        for former in self._former_keys(gateway_id):
            again = open_line(line, gateway_id, base58.decode_key(former), self._verifier)
            if not isinstance(again, Fault):
                return OpenedLine(gateway_id, line, again, signed_by=former)
        return opened

    def _commit(self, lines: Sequence[OpenedLine]) -> Intake:
        with self._store.transaction() as unit:
            books = unit.load(
                {name for line in lines for name in (line.gateway_id, line.signer)},
                [line.identity for line in lines if line.identity is not None],
            )
            intake = Intake(books, self._rules(), self._token, self._clock.now_ms(), self._kept)
            intake.take_all(lines)
            unit.save(intake.changes)
        return intake

    def _commit_alone(self, line: OpenedLine) -> Intake | None:
        try:
            return self._commit([line])
        except TransientError:
            raise
        except Exception as exc:  # noqa: BLE001 - see `process`; the line is kept as a rejection
            _log.error("ingest_line_set_aside", extra={"error": repr(exc)})
            refused = fault(
                "StoreRefused",
                f"The store does not take this line ({type(exc).__name__}); "
                "it is set aside, tell the operator of the cloud.",
            )
        try:
            return self._commit([OpenedLine(line.gateway_id, line.line, refused)])
        except StoreRefusedError as exc:
            # Without a receipt the gateway keeps the line and sends it again, hours apart.
            _log.error("ingest_line_dropped", extra={"error": repr(exc)})
            return None

    def _tell(self, intake: Intake, outcome: Outcome) -> None:
        credited_wh = sum(new.credit_wh for new in intake.changes.readings)
        outcome.credited_wh += credited_wh
        outcome.tally += intake.tally
        outcome.remarks += intake.remarks
        with self._counting:
            self.totals += intake.tally
            self.totals.update({f"remark:{name}": n for name, n in intake.remarks.items()})
        for receipt in intake.receipts():
            payload = encode_receipt(receipt, self._sign)
            outcome.receipts.append((receipt.gateway_id, payload))
        self._log_security(intake)
        for sample in intake.samples:
            self._on_sample(sample)
        changes = intake.changes
        if changes.readings or changes.events or changes.rejections:
            self._on_commit(credited_wh > 0)

    def _log_security(self, intake: Intake) -> None:
        for new in intake.changes.rejections:
            if new.fault.code == "ConflictingReading":
                _log.error(
                    "conflicting_reading",
                    extra={"gateway_id": new.gateway_id, "line_hash": new.line_hash},
                )


def _unaddressed(message: Message, why: str) -> OpenedLine:
    refused = fault("BadTopic", f"The topic {why}; publish readings below the gateway's own id.")
    # A store takes no NUL in a text; what is no printable ASCII is kept as it is spelled in code.
    name = ascii(message.topic)[1:-1][:120]
    return OpenedLine(name, message.payload, refused, addressable=False)
