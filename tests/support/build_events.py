"""Builders of events; a test names only what it is about."""

from typing import Any

from gridtokenx_cloud.events import (
    BatchMintingCompleted,
    MeterReadingReceived,
    MeterReadingValidationFailed,
    MintedMeter,
    TokensMinted,
)
from gridtokenx_cloud.ports.events import Principal


def slot(**changed: Any) -> MeterReadingReceived:
    """Return a stored slot reading of 125 Wh."""
    values: dict[str, Any] = {
        "kind": "slot",
        "reading_id": 1,
        "user_id": "anna",
        "wallet_address": "wallet",
        "meter_id": "HOUSE-17",
        "status": "accepted",
        "kwh_amount": "0.125",
        "credit_wh": 125,
        "import_wh": 1_000,
        "export_wh": 2_000,
        "reading_timestamp": "2026-09-21T14:13:20.000Z",
    }
    return MeterReadingReceived(**{**values, **changed})


def sample(**changed: Any) -> MeterReadingReceived:
    """Return a live value."""
    values: dict[str, Any] = {
        "kind": "sample",
        "reading_id": None,
        "kwh_amount": "0.000",
        "credit_wh": 0,
        "import_wh": None,
        "export_wh": None,
        "reading_timestamp": None,
        "active_power_w": -2_400,
    }
    return slot(**{**values, **changed})


def minted(**changed: Any) -> TokensMinted:
    """Return a mint of 1.5 kWh from two meters."""
    values: dict[str, Any] = {
        "batch_id": 7,
        "user_id": "anna",
        "wallet_address": "wallet",
        "meters": (
            MintedMeter(meter_id="HOUSE-17", credit_wh=1_000, readings=4),
            MintedMeter(meter_id="BARN-2", credit_wh=500, readings=2),
        ),
        "kwh_amount": "1.500",
        "tokens_minted": "1500000000",
        "decimals": 9,
        "transaction_signature": "5ig",
        "slot": 99,
        "duration_ms": 2_300,
    }
    return TokensMinted(**{**values, **changed})


def completed(**changed: Any) -> BatchMintingCompleted:
    """Return a whole batch of 1.5 kWh."""
    values: dict[str, Any] = {
        "batch_id": 7,
        "total_readings": 6,
        "successful_mints": 6,
        "failed_mints": 0,
        "recipients": 1,
        "total_wh": 1_500,
        "tokens_minted": "1500000000",
        "transaction_signature": "5ig",
        "fee_lamports": 10_000,
        "duration_ms": 2_300,
    }
    return BatchMintingCompleted(**{**values, **changed})


def refused(**changed: Any) -> MeterReadingValidationFailed:
    """Return a line of an unknown meter that was refused."""
    values: dict[str, Any] = {
        "reading_id": None,
        "user_id": None,
        "wallet_address": None,
        "meter_id": None,
        "kwh_amount": "0.000",
        "outcome": "rejected",
        "error_code": "UnknownMeter",
        "error_reason": "no such meter",
    }
    return MeterReadingValidationFailed(**{**values, **changed})


def owner(user_id: str = "anna", **changed: Any) -> Principal:
    """Return an owner who signed in with a token of that name."""
    values: dict[str, Any] = {
        "role": "owner",
        "user_id": user_id,
        "label": user_id,
        "token_hash": f"token-{user_id}",
    }
    return Principal(**{**values, **changed})


def staff(**changed: Any) -> Principal:
    """Return an administrator."""
    values: dict[str, Any] = {
        "role": "admin",
        "user_id": None,
        "label": "desk",
        "token_hash": "token-desk",
    }
    return Principal(**{**values, **changed})
