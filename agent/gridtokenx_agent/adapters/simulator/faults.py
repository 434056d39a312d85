"""What may be wrong with a simulated meter, its adapter or its gateway."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

from gridtokenx_agent.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class Faults:
    """What is wrong with a simulated meter; may be changed while it runs.

    Attributes:
        silent: Answers nothing.
        silent_after: Answers so many requests, then nothing more.
        lose_every: Every so many-th request gets no answer.
        delay_ms: Answers so much later; what came meanwhile is answered afterwards.
        byte_gap_ms: Pause between the bytes of an answer.
        corrupt_crc: Spoils the last byte of a serial answer.
        echo: The adapter sends every request back before the answer.
        cut_echo: So many bytes are missing at the start of the echo.
        truncate: So many bytes are missing at the end of an answer.
        wrong_unit: Answers as the next unit.
        wrong_function: Answers with the other read function.
        wrong_count: Answers with so many registers, whatever was asked.
        odd_bytes: The last data byte is missing, and not counted either.
        lie: The byte count of an answer is so much larger than its data.
        zero_transaction: Modbus TCP: answers with transaction id 0.
        hang_up: TCP: closes the connection after each answer.
        noise: Bytes that come before an answer, in hexadecimal digits.
        glue: Bytes that come right behind it, such as the frame of another meter.
        stuck: Every value is this high word and a zero word: 0x436C shows 236 everywhere.
        exception: Answers every request with this Modbus exception.
        refuse_gaps: Registers between two points are refused, as some meters do.
        refuse_over: More registers than this in one request are refused.
    """

    silent: bool = False
    silent_after: int | None = None
    lose_every: int | None = None
    delay_ms: int = 0
    byte_gap_ms: int = 0
    corrupt_crc: bool = False
    echo: bool = False
    cut_echo: int = 0
    truncate: int = 0
    wrong_unit: bool = False
    wrong_function: bool = False
    wrong_count: int | None = None
    odd_bytes: bool = False
    lie: int = 0
    zero_transaction: bool = False
    hang_up: bool = False
    noise: bytes = b""
    glue: bytes = b""
    stuck: int | None = None
    exception: int | None = None
    refuse_gaps: bool = False
    refuse_over: int | None = None


_KINDS: Final = {field.name: field.type for field in fields(Faults)}
_SMALLEST: Final = {"lose_every": 1, "wrong_count": 1, "exception": 1, "refuse_over": 1}
_LARGEST: Final = {
    "delay_ms": 60_000,
    "byte_gap_ms": 1000,
    "wrong_count": 125,
    "lie": 100,
    "stuck": 0xFFFF,
    "exception": 255,
    "refuse_over": 125,
}


def parse_faults(texts: Iterable[str]) -> Faults:
    """Read faults as they are typed: `silent`, `delay_ms=300`, `noise=01 04 10`.

    Raises:
        ConfigError: Lists every fault of the faults.
    """
    values: dict[str, bool | int | bytes] = {}
    wrong: list[str] = []
    for text in texts:
        name, given, value = text.partition("=")
        name = name.strip().replace("-", "_")
        try:
            values[name] = _value(name, value.strip() if given else None)
        except ValueError as exc:
            wrong.append(f"--fault {text}: {exc}")
    if wrong:
        raise ConfigError(tuple(wrong))
    return Faults(**values)  # type: ignore[arg-type]  # each value was read by its field's type


def _value(name: str, text: str | None) -> bool | int | bytes:
    if name not in _KINDS:
        raise ValueError(f"no such fault; there is {', '.join(_KINDS)}")
    kind = _KINDS[name]
    if kind is bool:
        if text is not None:
            raise ValueError("takes no value")
        return True
    if text is None:
        raise ValueError(f"give a value, as in {name}={'01FF' if kind is bytes else 3}")
    return _bytes(text) if kind is bytes else _number(name, text)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as exc:
        raise ValueError("give pairs of hexadecimal digits") from exc


def _number(name: str, text: str) -> int:
    low, high = _SMALLEST.get(name, 0), _LARGEST.get(name, 1_000_000)
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not low <= number <= high:
        raise ValueError(f"must be a whole number from {low} to {high}")
    return number
