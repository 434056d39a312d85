"""The machine and the way to the cloud: clock, disk, service, certificates, receipts."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gridtokenx_agent.clock import DAY_MS, Instant
from gridtokenx_agent.diagnosis.check import Check, Level, ago
from gridtokenx_wire.record import ClockQuality

_MB: Final = 1024 * 1024
_LEAST_FREE_BYTES: Final = 50 * _MB
_EXPIRES_SOON_MS: Final = 14 * DAY_MS
_RECEIPT_LATE_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """The agent as a systemd service: state words and the number of restarts."""

    state: str
    result: str
    restarts: int


def check_clock(at: Instant) -> Check:
    """Judge the wall clock."""
    shown = datetime.fromtimestamp(at.wall_ms / 1000, UTC).isoformat(timespec="seconds")
    if at.clock is ClockQuality.SYNCHRONISED:
        return Check("clock", Level.OK, f"is synchronised: {shown}")
    return Check(
        "clock", Level.WARN, f"nobody vouches for it; it says {shown}",
        "check `timedatectl`; readings are taken and dated rightly once the clock is",
    )  # fmt: skip


def check_disk(
    folder: Path, free_bytes: int | None, used_bytes: int, max_mb: int, *, writable: bool
) -> Check:
    """Judge the place of the buffer, whose file has *used_bytes* of at most *max_mb* MB."""
    name = f"disk {folder}"
    if free_bytes is None:
        return Check(name, Level.BAD, "is not there", f"`sudo mkdir -p {folder}`, for the agent")
    if not writable:
        return Check(
            name, Level.BAD, "can not be written by this user",
            "run doctor as the service's user; a disk that turned read-only must be replaced",
        )  # fmt: skip
    said = f"{free_bytes // _MB} MB free"
    if free_bytes < _LEAST_FREE_BYTES:
        return Check(name, Level.BAD, said, "free some space, or readings will be lost in the end")
    if free_bytes + used_bytes < max_mb * _MB:
        return Check(
            name, Level.WARN, f"{said}, the buffer may grow to {max_mb} MB",
            "free some space, or lower buffer.max_mb",
        )  # fmt: skip
    return Check(name, Level.OK, said)


def check_refused(count: int, last: str) -> Check:
    """Judge the lines the cloud refused; *last* is the reason of the newest."""
    if not count:
        return Check("refused", Level.OK, "the cloud refused no line")
    return Check(
        "refused", Level.WARN, f"the cloud refused {count} lines, the last one: {last}",
        "tell whoever runs the cloud; `gtx-agent status` lists them",
    )  # fmt: skip


def check_receipts(last_ms: int | None, waiting: int, now_ms: int, *, running: bool) -> Check:
    """Judge what the cloud confirmed, with *waiting* lines here."""
    if last_ms is None:
        said = f"the cloud has confirmed nothing yet; {waiting} lines wait"
        way_out = "enrol this gateway at the cloud" if running else "start the agent"
        return Check("receipts", Level.WARN, said, way_out)
    said = f"the last one came {ago(last_ms, now_ms)}; {waiting} lines wait"
    if waiting and now_ms - last_ms > _RECEIPT_LATE_MS:
        return Check(
            "receipts", Level.BAD, said,
            "see the broker checks; if all are ok, the cloud or its ingest is down",
        )  # fmt: skip
    return Check("receipts", Level.OK, said)


def check_certificate(whose: str, not_before_ms: int, not_after_ms: int, now_ms: int) -> Check:
    """Judge the dates of a certificate."""
    name = f"certificate of {whose}"
    until = datetime.fromtimestamp(not_after_ms / 1000, UTC).date().isoformat()
    if now_ms < not_before_ms:
        return Check(
            name, Level.BAD, "is not valid yet, by the clock of this machine",
            "set the clock; see `timedatectl`",
        )  # fmt: skip
    if now_ms > not_after_ms:
        return Check(name, Level.BAD, f"ran out on {until}", "renew it")
    if not_after_ms - now_ms < _EXPIRES_SOON_MS:
        return Check(name, Level.WARN, f"runs out on {until}", "renew it before that day")
    return Check(name, Level.OK, f"is valid until {until}")


def check_service(facts: ServiceFacts | None, agent_pid: int | None) -> Check:
    """Judge whether the agent runs, and whether it will after a power cut."""
    if agent_pid is not None:
        how = f"runs (pid {agent_pid})" if agent_pid else "runs"
        if facts is not None and facts.restarts:
            return Check("agent", Level.OK, f"{how}, restarted {facts.restarts} times")
        return Check("agent", Level.OK, how)
    if facts is None:
        return Check(
            "agent", Level.WARN, "does not run", "install systemd/gridtokenx-agent.service"
        )
    if facts.state == "failed":
        return Check(
            "agent", Level.BAD, f"has failed ({facts.result})",
            "see why: `journalctl -u gridtokenx-agent -n 20`",
        )  # fmt: skip
    return Check(
        "agent", Level.WARN, f"does not run ({facts.state})",
        "`sudo systemctl enable --now gridtokenx-agent`",
    )  # fmt: skip
