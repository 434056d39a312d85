"""The usual slot record read with one pattern: the same record as the full reader's, at a fifth.

The pattern holds only what is canonical and within every range, so a body that fits is right as it
stands. Whatever does not fit, rightly or wrongly written, is left to the full reader: this one
refuses nothing by itself.
"""

import re

from gridtokenx_wire import base58
from gridtokenx_wire.record import NO_VALUES, ClockQuality, LiveValues, Quality, SlotRecord, Stamp

_COUNT = "(0|[1-9][0-9]{0,14})"
_SIGNED = "(0|-?[1-9][0-9]{0,14})"
_SLOT = re.compile(
    rf'{{(?:"active_power_w":{_SIGNED},)?"boot_id":"([0-9a-f]{{32}})","clock":([012]),'
    rf'(?:"current_ma":{_SIGNED},)?"epoch":"([0-9a-f]{{16}})","export_wh":{_COUNT},'
    rf'"flags":(0|[1-9][0-9]{{0,8}}),(?:"frequency_mhz":{_SIGNED},)?"import_wh":{_COUNT},'
    r'"interval_s":([1-9][0-9]{0,3}),"kind":"slot",'
    rf'"meter_id":"([A-Za-z0-9][A-Za-z0-9._-]{{0,63}})","mono_ms":{_COUNT},'
    rf'(?:"power_factor_milli":{_SIGNED},)?"prev":"([0-9a-f]{{32}})",'
    r'"seq":([1-9][0-9]{0,14}),"token":"([1-9A-HJ-NP-Za-km-z]{32,44})","v":1,'
    rf'(?:"voltage_mv":{_SIGNED},)?"wall_ms":{_COUNT}}}'
)
_CLOCKS = {str(int(quality)): quality for quality in ClockQuality}
_NOTHING = (None,) * 5


def read_slot(body: bytes) -> SlotRecord | None:
    """Return the slot record of *body*, or None to have the full reader look at it.

    Raises:
        MalformedLineError: Of the usual form, but the token is no key.
    """
    # Latin-1 maps every byte to one character: what is not ASCII fits nowhere in the pattern.
    found = _SLOT.fullmatch(body.decode("latin-1"))
    if found is None:
        return None
    power_w, boot_id, clock, current_ma, epoch, export_wh, flags, *later = found.groups()
    frequency_mhz, import_wh, interval_s, meter_id, mono_ms, factor, *last = later
    prev, seq, token, voltage_mv, wall_ms = last
    base58.decode_key(token)
    return SlotRecord(
        Stamp(meter_id, epoch, int(seq), boot_id, int(mono_ms), int(wall_ms), _CLOCKS[clock]),
        int(interval_s),
        int(import_wh),
        int(export_wh),
        token,
        prev,
        Quality.NONE if flags == "0" else Quality(int(flags)),
        _live(power_w, voltage_mv, current_ma, frequency_mhz, factor),
    )


def _live(*values: str | None) -> LiveValues:
    if values == _NOTHING:
        return NO_VALUES
    power_w, voltage_mv, current_ma, frequency_mhz, factor = (
        None if value is None else int(value) for value in values
    )
    return LiveValues(
        active_power_w=power_w,
        voltage_mv=voltage_mv,
        current_ma=current_ma,
        frequency_mhz=frequency_mhz,
        power_factor_milli=factor,
    )
