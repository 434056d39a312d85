"""Raw registers of a meter that has no profile yet, and everything they could mean."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, get_args

import click

from gridtokenx_agent.commands.options import json_option
from gridtokenx_agent.errors import MeterBusyError, MeterRefusedError, MeterTimeoutError

if TYPE_CHECKING:
    from gridtokenx_agent.ports import ReadFunction
    from gridtokenx_agent.registers import RegisterType, WordOrder

_MOST: Final = 125
_SIZES: Final = {
    1: ("uint16", "int16"),
    2: ("uint32", "int32", "float32"),
    4: ("uint64", "int64", "float64"),
}
_GAP_MS: Final = 100
_WIDTH: Final = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What the registers from *address* on mean as one type, by byte order; None = no number."""

    address: int
    type: str
    values: dict[str, str | None]


def _register(_context: click.Context, _option: click.Parameter, text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= 0xFFFF:
        raise click.BadParameter(f"{text}; give a number from 0 to 65535, or 0x0000 to 0xFFFF")
    return number


@click.command()
@click.argument("url")
@click.option("--device-id", type=click.IntRange(0, 255), required=True, help="Address on the bus.")
@click.option("--address", callback=_register, required=True, metavar="NUMBER",
              help="First register, 72 or 0x48, counted from 0 as on the wire.")  # fmt: skip
@click.option("--count", type=click.IntRange(1, _MOST), default=2, show_default=True,
              help="How many registers.")  # fmt: skip
@click.option("--function", type=click.Choice(["3", "4"]), default=None,
              help="3 holding, 4 input registers; by default both are tried.")  # fmt: skip
@json_option
@click.pass_context
def probe(
    context: click.Context,
    url: str,
    device_id: int,
    address: int,
    count: int,
    function: str | None,
    as_json: bool,
) -> None:
    """Read raw registers at URL, and show them as every type in every order.

    Exit code 1 when the meter refuses or does not answer.
    """
    functions = (function,) if function else ("3", "4")
    answers = asyncio.run(_read(url, device_id, tuple(map(int, functions)), address, count))
    if as_json:
        click.echo(json.dumps({"answers": [_as_json(*answer, address) for answer in answers]}))
    else:
        click.echo("\n\n".join(_text(*answer, address) for answer in answers))
    context.exit(0 if any(not isinstance(said, str) for _, said in answers) else 1)


def meanings(words: Sequence[int], address: int) -> Iterator[Meaning]:
    """Yield what *words* mean from each register on, as every type that fits."""
    from gridtokenx_agent.registers import WordOrder

    for place in range(len(words)):
        for size, types in _SIZES.items():
            part = words[place : place + size]
            if len(part) < size:
                continue
            # One register has no word order: only its two bytes can be swapped.
            orders = ("ABCD", "BADC") if size == 1 else get_args(WordOrder)
            for kind in types:
                values = {order: _value(kind, order, part) for order in orders}
                yield Meaning(address=address + place, type=kind, values=values)


async def _read(
    url: str, device_id: int, functions: tuple[int, ...], address: int, count: int
) -> list[tuple[int, tuple[int, ...] | str]]:
    from gridtokenx_agent.adapters.modbus import open_bus
    from gridtokenx_agent.adapters.system import SystemClock

    bus = open_bus(url, SystemClock())
    answers: list[tuple[int, tuple[int, ...] | str]] = []
    try:
        for function in functions:
            kind: ReadFunction = 3 if function == 3 else 4
            try:
                read = await bus.read_words(device_id, kind, address, count, _GAP_MS)
            except (MeterRefusedError, MeterTimeoutError, MeterBusyError) as exc:
                # Some meters are silent for a function they do not have.
                answers.append((function, str(exc)))
            else:
                answers.append((function, read.words))
    finally:
        await bus.close()
    return answers


def _value(kind: str, order: str, words: Sequence[int]) -> str | None:
    from gridtokenx_agent.registers import decode_words

    register_type: RegisterType = kind  # type: ignore[assignment]  # one of _SIZES
    word_order: WordOrder = order  # type: ignore[assignment]  # one of WordOrder
    # No sentinels: whoever looks at raw registers wants to see them.
    found = decode_words(register_type, word_order, Decimal(1), words, ())
    return found.text


def _as_json(function: int, said: tuple[int, ...] | str, address: int) -> dict[str, object]:
    if isinstance(said, str):
        return {"function": function, "words": None, "error": said}
    decoded = [
        {"address": entry.address, "type": entry.type, "values": entry.values}
        for entry in meanings(said, address)
    ]
    words = [f"{word:04X}" for word in said]
    return {"function": function, "words": words, "error": None, "decoded": decoded}


def _text(function: int, said: tuple[int, ...] | str, address: int) -> str:
    if isinstance(said, str):
        return f"function {function}: {said}"
    from gridtokenx_agent.registers import WordOrder

    orders = get_args(WordOrder)
    head = f"{'address':<15}{'words':<21}{'type':<9}" + "".join(f"{o:>{_WIDTH}}" for o in orders)
    lines = [f"function {function}", head.rstrip()]
    last = -1
    for entry in meanings(said, address):
        place = entry.address - address
        words = " ".join(f"{word:04X}" for word in said[place : place + 4])
        label = f"{entry.address:>5} (0x{entry.address:04X})" if entry.address != last else ""
        shown = words if entry.address != last else ""
        cells = "".join(f"{_short(entry.values.get(order, '')):>{_WIDTH}}" for order in orders)
        lines.append(f"{label:<15}{shown:<21}{entry.type:<9}{cells}".rstrip())
        last = entry.address
    return "\n".join(lines)


def _short(text: str | None) -> str:
    """Return *text* so that it fits its column; a float may have hundreds of digits."""
    if text is None:
        return "-"
    return text if len(text) < _WIDTH else f"{Decimal(text):.9E}"
