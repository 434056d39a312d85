"""What is wrong and what to do about it, in words; decided from facts that others gathered."""

from gridtokenx_agent.diagnosis.bus import (
    PortFacts,
    check_failed_meter,
    check_kept_meter,
    check_port,
    check_read_meter,
)
from gridtokenx_agent.diagnosis.check import (
    Check,
    Level,
)
from gridtokenx_agent.diagnosis.machine import (
    ServiceFacts,
    check_certificate,
    check_clock,
    check_disk,
    check_receipts,
    check_refused,
    check_service,
)

__all__ = [
    "Check",
    "Level",
    "PortFacts",
    "ServiceFacts",
    "check_certificate",
    "check_clock",
    "check_disk",
    "check_failed_meter",
    "check_kept_meter",
    "check_port",
    "check_read_meter",
    "check_receipts",
    "check_refused",
    "check_service",
]
