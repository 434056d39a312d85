"""Builders for agent and wire values; a test names only what it is about."""

import itertools
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gridtokenx_agent.adapters.keyfile import KeyFileSigner
from gridtokenx_agent.clock import Instant
from gridtokenx_agent.counters import Counter, MeterState, RawReading, Register
from gridtokenx_agent.ports import NewRow, RecordBuffer
from gridtokenx_agent.recorder import RecorderParts
from gridtokenx_wire.base58 import encode_key
from gridtokenx_wire.encoding import encode_line, line_hash
from gridtokenx_wire.receipt import LineRejection, Ranges, Receipt, encode_receipt
from gridtokenx_wire.record import (
    FIRST_PREV,
    ClockQuality,
    EventRecord,
    Record,
    SampleRecord,
    SlotRecord,
    Stamp,
)
from tests.support.fake_bus import BOOT_ID

TOKEN = "So11111111111111111111111111111111111111112"
EPOCH = "00000000000000e1"
NOON_MS = 1_767_225_600_000

SIGNER = KeyFileSigner(Ed25519PrivateKey.from_private_bytes(b"g" * 32))
CLOUD = Ed25519PrivateKey.from_private_bytes(b"c" * 32)
CLOUD_KEY = CLOUD.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
CLOUD_KEY_TEXT = encode_key(CLOUD_KEY)


def instant(
    mono_ms: int = 1_000_000,
    *,
    boot_id: str = BOOT_ID,
    wall_ms: int | None = None,
    clock: ClockQuality = ClockQuality.SYNCHRONISED,
) -> Instant:
    wall = NOON_MS + mono_ms - 1_000_000 if wall_ms is None else wall_ms
    return Instant(boot_id=boot_id, mono_ms=mono_ms, wall_ms=wall, clock=clock)


def raw(import_wh: int, export_wh: int = 0, at: Instant | None = None) -> RawReading:
    return RawReading(import_wh=import_wh, export_wh=export_wh, at=at or instant())


def counter(import_wh: int, export_wh: int = 0, at: Instant | None = None) -> Counter:
    return Counter(import_=Register(import_wh), export=Register(export_wh), at=at or instant())


def record(
    kind: str, meter_id: str, seq: int, epoch: str = EPOCH, prev: str = FIRST_PREV
) -> Record:
    stamp = Stamp(
        meter_id=meter_id,
        epoch=epoch,
        seq=seq,
        boot_id=BOOT_ID,
        mono_ms=seq,
        wall_ms=NOON_MS + seq,
        clock=ClockQuality.SYNCHRONISED,
    )
    if kind == "sample":
        return SampleRecord(stamp=stamp)
    if kind == "event":
        return EventRecord(stamp=stamp, event="MeterUp")
    return SlotRecord(
        stamp=stamp, interval_s=900, import_wh=seq, export_wh=seq, token=TOKEN, prev=prev
    )


def row(kind: str, meter_id: str, seq: int, epoch: str = EPOCH, *, opens: bool = False) -> NewRow:
    line = encode_line(record(kind, meter_id, seq, epoch), SIGNER.sign)
    return NewRow(epoch=epoch, seq=seq, kind=kind, wall_ms=NOON_MS + seq, line=line, opens=opens)


def state(meter_id: str, seq: int, epoch: str = EPOCH) -> MeterState:
    return MeterState(meter_id=meter_id, epoch=epoch, profile="eastron-sdm630", seq=seq)


async def fill(
    buffer: RecordBuffer, meter_id: str, kinds: Sequence[str], first_seq: int = 1
) -> list[bytes]:
    """Commit one row per kind, each in its own transaction; return the lines."""
    lines = []
    for seq, kind in enumerate(kinds, first_seq):
        new = row(kind, meter_id, seq)
        await buffer.commit(state(meter_id, seq), [new], {})
        lines.append(new.line)
    return lines


def receipt(
    meter_id: str, *ranges: tuple[int, int], epoch: str = EPOCH, rejected: Sequence[bytes] = ()
) -> Receipt:
    durable: dict[str, dict[str, Ranges]] = {meter_id: {epoch: ranges}} if ranges else {}
    return Receipt(
        gateway_id=SIGNER.gateway_id,
        issued_ms=NOON_MS,
        durable=durable,
        rejected=tuple(
            LineRejection(line=line_hash(line), code="BadSignature", reason="because")
            for line in rejected
        ),
    )


def sealed(value: Receipt, key: Ed25519PrivateKey = CLOUD) -> bytes:
    return encode_receipt(value, key.sign)


_EPOCHS = itertools.count(1)


def new_epoch() -> str:
    return f"{next(_EPOCHS):016x}"


def recorder_parts(
    buffer: RecordBuffer, committed: Callable[[], None] = lambda: None, group_ms: int = 0
) -> RecorderParts:
    return RecorderParts(
        buffer=buffer,
        signer=SIGNER,
        token=TOKEN,
        group_ms=group_ms,
        new_epoch=new_epoch,
        committed=committed,
    )
