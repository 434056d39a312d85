"""A machine with a battery-less clock, reboots and a time daemon, in time the test moves."""

from dataclasses import dataclass, field

from gridtokenx_agent.clock import ClockTrust, KernelTime, rate, remember
from gridtokenx_agent.ports import Instant

ONE_DAY_MS = 86_400_000
_KERNEL_GIVES_UP_US = 16_000_000


@dataclass
class World:
    """`Clock` of a simulated machine; *true_ms* is what an observatory would say.

    Attributes:
        error_ms: Wall clock minus true time; a boot without a battery or a hand sets it.
        synchronised: What the kernel claims.
        since_set_ms: Time since a daemon last set the clock; the kernel's error grows with it.
    """

    true_ms: int = 1_767_225_600_000
    error_ms: int = 0
    mono_ms: int = 5_000
    boot: int = 1
    synchronised: bool = True
    since_set_ms: int = 0
    trust: ClockTrust = field(default_factory=ClockTrust)

    @property
    def boot_id(self) -> str:
        return f"{self.boot:032x}"

    def now(self) -> Instant:
        error_us = min(_KERNEL_GIVES_UP_US, self.since_set_ms // 2)
        kernel = KernelTime(
            synchronised=self.synchronised and error_us < _KERNEL_GIVES_UP_US,
            max_error_us=error_us,
        )
        wall_ms = max(0, self.true_ms + self.error_ms)
        self.trust, quality = rate(self.trust, kernel, self.mono_ms, wall_ms)
        return Instant(boot_id=self.boot_id, mono_ms=self.mono_ms, wall_ms=wall_ms, clock=quality)

    async def sleep_until(self, mono_ms: int) -> None:
        self.advance(max(0, mono_ms - self.mono_ms))

    def advance(self, elapsed_ms: int) -> None:
        self.true_ms += elapsed_ms
        self.mono_ms += elapsed_ms
        self.since_set_ms += elapsed_ms

    def boots(self, *, off_ms: int, wall_ms: int | None = None, synchronised: bool = False) -> None:
        """Come up after *off_ms* without power, showing *wall_ms* (None = the true time)."""
        self.true_ms += off_ms
        self.boot += 1
        self.mono_ms = 5_000
        self.error_ms = 0 if wall_ms is None else wall_ms - self.true_ms
        self.synchronised = synchronised
        self.since_set_ms = 0
        self.trust = ClockTrust()

    def starts(self, *stored: Instant) -> None:
        """Start the agent again, with what its buffer holds."""
        self.trust = remember(stored, self.boot_id)

    def daemon_sets(self, *, error_ms: int = 0) -> None:
        """A time daemon sets the clock, by default to the truth."""
        self.error_ms = error_ms
        self.synchronised = True
        self.since_set_ms = 0

    def hand_sets(self, *, error_ms: int) -> None:
        """Somebody sets the clock; the kernel then knows that nothing disciplines it."""
        self.error_ms = error_ms
        self.synchronised = False
