"""Ports and meters: why one is silent, and what to try first."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gridtokenx_agent.diagnosis.check import Check, Level, ago
from gridtokenx_agent.errors import (
    AgentError,
    BusDownError,
    Heard,
    MeterBusyError,
    MeterRefusedError,
    MeterTimeoutError,
)

_SLOT_GRACE_MS: Final = 60_000
_GATEWAY_MISSES: Final = frozenset({0x0A, 0x0B})
_PROGRAM: Final = "gtx-agent"
_BARE_NAMES: Final = ("/dev/ttyUSB", "/dev/ttyACM")


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFacts:
    """A serial port as the file system shows it.

    Attributes:
        exists: The path leads somewhere.
        is_port: To a character device.
        usable: This user may read and write it.
        service_may: So may the groups the shipped service runs with.
        group: Group that may, as a rule `dialout`.
        stable_name: A name under /dev/serial/by-id that survives replugging; None without one.
        users: Processes that have it open: pid and name, as far as this user may see.
    """

    path: Path
    exists: bool
    is_port: bool = False
    usable: bool = False
    service_may: bool = True
    group: str = ""
    stable_name: Path | None = None
    users: tuple[tuple[int, str], ...] = ()


def check_port(facts: PortFacts, agent_pid: int | None, *, service: bool = False) -> Check:
    """Judge a serial port.

    Args:
        facts: What the file system shows of it.
        agent_pid: The running agent, which may have it open; 0 = its number is unknown.
        service: The agent is installed as a service: what root may do says nothing about it.
    """
    name = f"port {facts.path}"
    others = [
        f"{who} (pid {pid})"
        for pid, who in facts.users
        if pid != agent_pid and not (agent_pid == 0 and who == _PROGRAM)
    ]
    if not facts.exists:
        return Check(
            name, Level.BAD, "is not there",
            "plug the adapter in; `ls -l /dev/serial/by-id` shows the names there are",
        )  # fmt: skip
    if not facts.is_port:
        return Check(name, Level.BAD, "is no serial port", "name a device below /dev")
    if not facts.usable:
        return Check(
            name, Level.BAD, f"may not be opened by this user; it belongs to group {facts.group}",
            f"run as the service's user, or `sudo usermod -aG {facts.group} $USER` and log in anew",
        )  # fmt: skip
    if service and not facts.service_may:
        return Check(
            name, Level.BAD, f"may not be opened by the service; it belongs to group {facts.group}",
            'give it to the service by a udev rule with GROUP="dialout", MODE="0660"; on a '
            "Raspberry Pi, switch the login shell on it off in raspi-config",
        )  # fmt: skip
    if others:
        return Check(
            name, Level.BAD, f"is in use by {', '.join(others)}",
            "stop that program: two on one port take each other's answers",
        )  # fmt: skip
    if facts.stable_name not in (None, facts.path):
        return Check(
            name, Level.WARN, "may get another name when it is plugged in again",
            f"use {facts.stable_name} instead",
        )  # fmt: skip
    if str(facts.path).startswith(_BARE_NAMES):
        return Check(
            name, Level.WARN, "may get another name when it is plugged in again",
            "give it a name of its own with a udev rule; see docs/installer-guide.md",
        )  # fmt: skip
    return Check(
        name, Level.OK, "is in use by the agent" if facts.users else "is there and may be used"
    )


def check_failed_meter(meter_id: str, where: str, error: AgentError, *, others: bool) -> Check:
    """Judge a meter that could not be read.

    Args:
        meter_id: Its name.
        where: Bus and device id.
        error: What came of it.
        others: Another meter of the same bus answers.
    """
    name = f"meter {meter_id}"
    if isinstance(error, MeterTimeoutError):
        said, way_out = _SILENT[error.heard]
        if error.heard == "nothing" and others:
            said, way_out = _SILENT_ALONE
        return Check(name, Level.BAD, f"{said} ({where})", way_out)
    if isinstance(error, MeterRefusedError):
        return Check(
            name, Level.BAD, f"answers, but refuses the registers of its profile: {error}",
            "it is another model, or another firmware: `gtx-agent scan` tells which profile fits",
        )  # fmt: skip
    if isinstance(error, MeterBusyError):
        gateway = error.code in _GATEWAY_MISSES
        return Check(
            name, Level.BAD, f"is not reached by its gateway ({where})" if gateway else str(error),
            "check the wiring behind the gateway, its baud rate and parity, and the device id"
            if gateway else "wait, then run doctor again; a meter that stays so is broken",
        )  # fmt: skip
    if isinstance(error, BusDownError):
        return Check(name, Level.BAD, str(error), "check the port or the address of the gateway")
    return Check(name, Level.BAD, str(error), "check the profile with `gtx-agent probe`")


_SILENT: Final[Mapping[Heard, tuple[str, str]]] = {
    "nothing": (
        "does not answer at all",
        "check its supply, A and B (swap them), device id, baud rate; `gtx-agent scan` tries them",
    ),
    "garbage": (
        "answers, but no frame arrives whole",
        "check baud rate and parity first, then that no other meter has this device id, then "
        "termination (120 ohm at both ends), bias and cable",
    ),
    "other_unit": (
        "is silent while another meter answers in its place",
        "give each meter a device id of its own, and have one master on the bus",
    ),
    "other_answer": (
        "answers with other registers than were asked",
        "take other masters off the bus; a gateway may need its buffering or cache switched off",
    ),
}
_SILENT_ALONE: Final = (
    "does not answer, while others on its bus do",
    "the bus works: check the supply, the wires and the device id of this meter",
)


def check_read_meter(meter_id: str, fault: str, values: str, *, implausible: bool) -> Check:
    """Judge a meter that answered; *values* is what it said, *fault* why there is no energy."""
    name = f"meter {meter_id}"
    if fault:
        return Check(
            name, Level.BAD, f"answers, but gives no energy: {fault}",
            "compare its profile with its name plate; `gtx-agent scan` tells which one fits",
        )  # fmt: skip
    if implausible:
        return Check(
            name, Level.WARN, f"{values}, and a value that can not be right",
            "compare with the display; the profile may be that of another model",
        )  # fmt: skip
    return Check(name, Level.OK, values)


def check_kept_meter(
    meter_id: str, state: str, last_slot_ms: int | None, interval_s: int, now_ms: int
) -> Check:
    """Judge a meter by what the running agent has stored of it; its bus is left alone."""
    name = f"meter {meter_id}"
    if state == "down":
        return Check(
            name, Level.BAD, f"has stopped answering; last slot {ago(last_slot_ms, now_ms)}",
            "check its supply and wiring; to test its bus, stop the agent and run doctor again",
        )  # fmt: skip
    if last_slot_ms is None:
        return Check(
            name, Level.WARN, "has no slot yet",
            f"wait for the next slot ({interval_s} s long), then run doctor again",
        )  # fmt: skip
    if now_ms - last_slot_ms > 2 * interval_s * 1000 + _SLOT_GRACE_MS:
        return Check(
            name, Level.BAD, f"its last slot is {ago(last_slot_ms, now_ms)}",
            "look at the agent's log: `journalctl -u gridtokenx-agent`",
        )  # fmt: skip
    return Check(name, Level.OK, f"is read by the agent; last slot {ago(last_slot_ms, now_ms)}")
