"""What is told of a reading."""

from gridtokenx_cloud.events import (
    MeterReadingReceived,
    MeterReadingValidationFailed,
    kwh_text,
    rfc3339,
)
from gridtokenx_cloud.verify import Fault, Meter
from gridtokenx_wire.record import SampleRecord, SlotRecord


def received_event(
    meter: Meter,
    record: SlotRecord | SampleRecord,
    reading_id: int | None,
    dated_ms: int | None,
    status: str,
    credit_wh: int,
) -> MeterReadingReceived:
    """Return the event of a stored slot, or of a sample."""
    slot = record if isinstance(record, SlotRecord) else None
    return MeterReadingReceived(
        kind=record.kind,
        reading_id=reading_id,
        user_id=meter.user_id,
        wallet_address=meter.wallet,
        meter_id=meter.meter_id,
        status=status,
        kwh_amount=kwh_text(credit_wh),
        credit_wh=credit_wh,
        import_wh=slot.import_wh if slot else None,
        export_wh=slot.export_wh if slot else None,
        reading_timestamp=None if dated_ms is None else rfc3339(dated_ms),
        active_power_w=record.live.active_power_w,
        voltage_mv=record.live.voltage_mv,
        current_ma=record.live.current_ma,
        frequency_mhz=record.live.frequency_mhz,
    )


def failed_event(
    meter: Meter, reading_id: int, claim_wh: int, outcome: str, found: Fault
) -> MeterReadingValidationFailed:
    """Return the event of a reading that is held, or that an operator refused."""
    return MeterReadingValidationFailed(
        reading_id=reading_id,
        user_id=meter.user_id,
        wallet_address=meter.wallet,
        meter_id=meter.meter_id,
        kwh_amount=kwh_text(claim_wh),
        outcome=outcome,
        error_code=found.code,
        error_reason=found.reason,
    )


def rejected_event(
    meter_id: str | None, owned: Meter | None, found: Fault
) -> MeterReadingValidationFailed:
    """Return the event of a refused line; *owned* is the meter where the sender owns it."""
    return MeterReadingValidationFailed(
        reading_id=None,
        user_id=owned.user_id if owned else None,
        wallet_address=owned.wallet if owned else None,
        meter_id=meter_id,
        kwh_amount=kwh_text(0),
        outcome="rejected",
        error_code=found.code,
        error_reason=found.reason,
    )
