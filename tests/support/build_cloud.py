"""Builders for the cloud's ingest side: a gateway that signs, a store with what it needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.ingest import SqlIngestStore
from gridtokenx_cloud.adapters.store.migrate import migrate
from gridtokenx_cloud.adapters.store.registry import SqlRegistry
from gridtokenx_cloud.adapters.store.registry_rows import former_keys
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.events import MeterReadingReceived
from gridtokenx_cloud.ingest import IngestService, Message, Outcome
from gridtokenx_cloud.throttle import TokenBuckets
from gridtokenx_cloud.verify import EpochPolicy, Meter, ReadingRules
from gridtokenx_wire import base58
from gridtokenx_wire.encoding import encode_line, join_lines
from gridtokenx_wire.receipt import Receipt, decode_receipt
from gridtokenx_wire.record import (
    FIRST_PREV,
    ClockQuality,
    ClockRecord,
    LiveValues,
    Record,
    SampleRecord,
    SlotRecord,
    Stamp,
)
from gridtokenx_wire.signing import signer, verify_ed25519
from gridtokenx_wire.topics import Channel, topic

NOON_MS = 1_780_000_000_000
SLOT_MS = 900_000
EPOCH = "00000000000000e1"
BOOT = "0" * 31 + "b"
METER_ID = "HOUSE-17"
TOKEN = base58.encode_key(bytes(range(1, 33)))
CLOUD_KEY = Ed25519PrivateKey.from_private_bytes(b"c" * 32)


@dataclass
class FakeClock:
    """`Clock` that stands still until it is moved."""

    at_ms: int = NOON_MS

    def now_ms(self) -> int:
        return self.at_ms


@dataclass(frozen=True)
class Gateway:
    """A gateway's key, and lines signed with it."""

    key: Ed25519PrivateKey

    @property
    def gateway_id(self) -> str:
        return base58.encode_key(self.key.public_key().public_bytes_raw())

    def line(self, record: Record) -> bytes:
        return encode_line(record, signer(self.key))

    def message(self, *lines: bytes) -> Message:
        return Message(topic(self.gateway_id, Channel.READINGS), join_lines(lines))

    def sends(self, *records: Record) -> Message:
        return self.message(*(self.line(record) for record in records))


GATEWAY = Gateway(Ed25519PrivateKey.from_private_bytes(b"g" * 32))
OTHER_GATEWAY = Gateway(Ed25519PrivateKey.from_private_bytes(b"h" * 32))


def wallet(seed: int) -> str:
    """Return a real key's address, so that it lies on the curve."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return base58.encode_key(key.public_key().public_bytes_raw())


def meter(
    meter_id: str = METER_ID,
    *,
    rated_power_w: int = 10_000,
    resolution_wh: int = 1,
    epoch_policy: EpochPolicy = "first",
) -> Meter:
    return Meter(
        meter_id=meter_id,
        gateway_id=GATEWAY.gateway_id,
        user_id="ann",
        wallet=wallet(1),
        rated_power_w=rated_power_w,
        resolution_wh=resolution_wh,
        epoch_policy=epoch_policy,
    )


def stamp(
    seq: int = 1,
    *,
    meter_id: str = METER_ID,
    epoch: str = EPOCH,
    boot_id: str = BOOT,
    mono_ms: int | None = None,
    wall_ms: int | None = None,
    clock: ClockQuality = ClockQuality.SYNCHRONISED,
) -> Stamp:
    """Return the stamp of the seq-th slot; the hundredth ends at noon."""
    return Stamp(
        meter_id=meter_id,
        epoch=epoch,
        seq=seq,
        boot_id=boot_id,
        mono_ms=seq * SLOT_MS if mono_ms is None else mono_ms,
        wall_ms=NOON_MS + (seq - 100) * SLOT_MS if wall_ms is None else wall_ms,
        clock=clock,
    )


def slot(
    seq: int = 1,
    export_wh: int = 0,
    *,
    at: Stamp | None = None,
    token: str = TOKEN,
    live: LiveValues | None = None,
) -> SlotRecord:
    return SlotRecord(
        stamp=at or stamp(seq),
        interval_s=SLOT_MS // 1000,
        import_wh=5_000,
        export_wh=export_wh,
        token=token,
        prev=FIRST_PREV,
        live=live or LiveValues(),
    )


def sample(seq: int, power_w: int, *, at: Stamp | None = None) -> SampleRecord:
    return SampleRecord(stamp=at or stamp(seq), live=LiveValues(active_power_w=power_w))


def clock_record(
    seq: int,
    *,
    mono_ms: int,
    wall_ms: int,
    boot_id: str = BOOT,
    error_ms: int = 20,
    clock: ClockQuality = ClockQuality.SYNCHRONISED,
) -> ClockRecord:
    at = stamp(
        seq, meter_id="_gateway", boot_id=boot_id, mono_ms=mono_ms, wall_ms=wall_ms, clock=clock
    )
    return ClockRecord(stamp=at, error_ms=error_ms)


@dataclass
class Cloud:
    """The ingest side over a real store, with a clock that stands still."""

    database: Database
    clock: FakeClock
    registry: SqlRegistry
    service: IngestService
    samples: list[MeterReadingReceived] = field(default_factory=list)
    commits: list[bool] = field(default_factory=list)

    def take(self, *messages: Message) -> Outcome:
        return self.service.process(messages)

    def rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        return [tuple(row) for row in self.database.connection.execute(sql, values)]

    def readings(self) -> list[tuple[object, ...]]:
        """Return (seq, status, credit_wh, reason) of every stored reading."""
        return self.rows("SELECT seq, status, credit_wh, reason FROM meter_readings ORDER BY seq")


def receipt(outcome: Outcome, gateway: Gateway = GATEWAY) -> Receipt:
    """Return what *gateway* is told, its signature checked as the gateway would."""
    key = CLOUD_KEY.public_key().public_bytes_raw()
    payloads = dict(outcome.receipts)
    return decode_receipt(payloads[gateway.gateway_id], key, verify_ed25519)


@contextmanager
def cloud(
    where: Path | Database,
    *,
    rules: ReadingRules | None = None,
    resolution_wh: int = 1,
    epoch_policy: EpochPolicy = "first",
    buckets: TokenBuckets | None = None,
) -> Iterator[Cloud]:
    """Give a cloud that knows ann, bob, one gateway each, HOUSE-17 (ann) and HOUSE-18 (bob).

    Its store is a given one with our schema, new or with that in it, or made in a folder.
    """
    if isinstance(where, Path):
        database = open_database(f"sqlite:///{where / 'cloud.db'}")
        migrate(database)
    else:
        database = where
    clock = FakeClock()
    registry = SqlRegistry(database, clock, actor="test")
    if not registry.users():
        enrol(registry, resolution_wh=resolution_wh, epoch_policy=epoch_policy)
    samples: list[MeterReadingReceived] = []
    commits: list[bool] = []
    service = IngestService(
        SqlIngestStore(database),
        verify,
        signer(CLOUD_KEY),
        lambda: rules or ReadingRules(),
        TOKEN,
        clock,
        former_keys=lambda name: former_keys(database.connection, name, clock.now_ms()),
        buckets=buckets,
        on_commit=commits.append,
        on_sample=samples.append,
    )
    try:
        yield Cloud(database, clock, registry, service, samples, commits)
    finally:
        database.close()


def enrol(
    registry: SqlRegistry, *, resolution_wh: int = 1, epoch_policy: EpochPolicy = "first"
) -> None:
    """Enrol what `cloud` promises."""
    for user_id, seed, gateway, meter_id in (
        ("ann", 1, GATEWAY, METER_ID),
        ("bob", 2, OTHER_GATEWAY, "HOUSE-18"),
    ):
        registry.add_user(user_id, wallet(seed))
        registry.add_gateway(gateway.gateway_id, f"gateway of {user_id}")
        registry.add_meter(
            meter_id,
            gateway_id=gateway.gateway_id,
            user_id=user_id,
            rated_power_w=10_000,
            resolution_wh=resolution_wh,
            epoch_policy=epoch_policy,
        )
