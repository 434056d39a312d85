"""What the demo shows while it runs: a live table on a terminal, a line now and then elsewhere."""

import sys
import time
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo.books import Books
from demo.town import METERS, OWNERS, SPEED, TownClock, exported_wh, shown

LINE_EVERY_S = 5.0
BASE_UNITS_PER_TOKEN = 10**9


@dataclass
class Snapshot:
    """Everything one look needs."""

    clock: TownClock
    books: Books
    depths: dict[str, int | None]
    links: dict[str, str]
    phase: str
    restarts: int


class View:
    """Shows snapshots; on a terminal it redraws, elsewhere it prints."""

    def __init__(self) -> None:
        self._console = Console()
        self._live: Live | None = None
        self._last_line = 0.0
        self._phase = ""

    def open(self) -> None:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Print one line above whatever is drawn."""
        if self._live is not None:
            self._live.console.print(text, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def show(self, snapshot: Snapshot) -> None:
        if self._live is not None:
            self._live.update(_picture(snapshot), refresh=True)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_S or snapshot.phase != self._phase:
            self._last_line, self._phase = now, snapshot.phase
            print(_line(snapshot), flush=True)


def tokens(base_units: int) -> str:
    """Return base units as tokens, exact, without trailing zeros beyond three places."""
    whole, rest = divmod(base_units, BASE_UNITS_PER_TOKEN)
    fraction = f"{rest:09d}".rstrip("0").ljust(3, "0")
    return f"{whole:,}.{fraction}"


def town_time(clock: TownClock) -> str:
    """Return the town's day and time of day."""
    minutes = clock.now_ms // 60_000
    return f"day {minutes // 1440 + 1}, {minutes // 60 % 24:02d}:{minutes % 60:02d}"


def _line(snapshot: Snapshot) -> str:
    books, now_ms = snapshot.books, snapshot.clock.now_ms
    depth = sum(d or 0 for d in snapshot.depths.values())
    exported = sum(exported_wh(meter, now_ms) for meter in METERS)
    last = f", last mint {books.last_signature[:12]}..." if books.last_signature else ""
    return (
        f"[{snapshot.phase}] {town_time(snapshot.clock)}: exported {exported:,} Wh, "
        f"{books.readings_accepted} readings accepted, {depth} buffered, "
        f"credited {books.credited_wh:,} Wh, minted {books.minted_wh:,} Wh "
        f"in {books.transactions} transactions{last}"
    )


def _picture(snapshot: Snapshot) -> Group:
    table = Table(expand=True, header_style="bold", border_style="dim")
    for name in ("meter", "owner", "read over", "power now", "exported Wh", "credited Wh"):
        table.add_column(
            name, justify="right" if name[-2:] == "Wh" or name[:5] == "power" else "left"
        )
    now_ms = snapshot.clock.now_ms
    for meter in METERS:
        power_w = shown(meter, now_ms).active_power_w
        books = snapshot.books.meters.get(meter.meter_id)
        table.add_row(
            f"{meter.meter_id}\n[dim]{meter.profile}[/dim]",
            meter.owner,
            meter.bus,
            Text(f"{abs(power_w):,} W {'out' if power_w < 0 else 'in '}", style=_colour(power_w)),
            f"{exported_wh(meter, now_ms):,}",
            f"{books.credited_wh:,}" if books else "-",
        )
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(snapshot):
        facts.add_row(Text(name, style="dim"), value)
    title = f"GridTokenX demo - {town_time(snapshot.clock)} (a day takes {86_400 // SPEED} s)"
    return Group(Panel(Group(table, facts), title=title, subtitle=snapshot.phase))


def _facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    books = snapshot.books
    depths = "  ".join(f"{owner} {depth or 0}" for owner, depth in snapshot.depths.items())
    minted = "  ".join(f"{owner} {tokens(books.base_units.get(owner, 0))}" for owner in OWNERS)
    facts = [
        (
            "readings accepted",
            f"{books.readings_accepted:,}   waiting in the agents' buffers: {depths}",
        ),
        ("credited / minted", f"{books.credited_wh:,} Wh / {books.minted_wh:,} Wh"),
        ("tokens minted", minted),
        ("transactions", f"{books.transactions}, the last {books.last_signature or '-'}"),
    ]
    if books.held or books.rejected:
        facts.append(("held / rejected", f"{books.held} / {books.rejected}"))
    if snapshot.restarts:
        facts.append(("programs restarted", str(snapshot.restarts)))
    address = next(iter(snapshot.links.values()), "").partition("#")[0]
    return [*facts, ("live page", f"{address} (links that sign you in: above)")]


def _colour(power_w: int) -> str:
    return "green" if power_w < 0 else "yellow"


def error(text: str) -> None:
    """Print one line where errors go."""
    print(f"demo: {text}", file=sys.stderr, flush=True)
