"""Energy to tokens and back in whole numbers, and when a refused credit is tried again."""

import hashlib
from dataclasses import dataclass
from decimal import Decimal

from gridtokenx_cloud.errors import ConfigError, ValidationError

U64_MAX = 2**64 - 1
STORE_MAX = 2**63 - 1
"""Largest amount kept: the chain counts in u64, an SQL integer in i64."""

_LARGEST_EXPONENT = 10_000


@dataclass(frozen=True, slots=True)
class Conversion:
    """The fixed rate between energy and tokens.

    Attributes:
        base_units_per_wh: Smallest token units per Wh; a whole number, or the rate is refused.
        decimals: Of the token's mint.
    """

    base_units_per_wh: int
    decimals: int

    def wh_to_base_units(self, wh: int) -> int:
        """Return the amount for *wh*, exactly.

        Raises:
            ValidationError: `NegativeAmount`, or `AmountExceedsMaximum` above 2**63-1.
        """
        return _bounded(wh * self.base_units_per_wh, f"{wh} Wh")

    def base_units_to_wh(self, amount_base_units: int) -> int:
        """Return the energy of an amount.

        Raises:
            ValidationError: `NegativeAmount`, or `InvalidConversion` when a part of a Wh is left.
        """
        _bounded(amount_base_units, f"{amount_base_units} base units")
        wh, rest = divmod(amount_base_units, self.base_units_per_wh)
        if rest:
            raise ValidationError(
                "InvalidConversion",
                f"{amount_base_units} base units are no whole number of Wh: one Wh is"
                f" {self.base_units_per_wh}; check the token's decimals and ratio",
            )
        return wh

    def kwh_to_tokens(self, kwh: Decimal) -> int:
        """Return the base units for *kwh*, for amounts typed by people.

        Raises:
            ValidationError: As `wh_to_base_units`, or `InvalidConversion` below one Wh.
        """
        wh = kwh * 1000
        if not wh.is_finite() or wh != wh.to_integral_value():
            raise ValidationError(
                "InvalidConversion", f"{kwh} kWh are no whole number of Wh; give at most 3 places"
            )
        return self.wh_to_base_units(int(wh))

    def tokens_to_kwh(self, amount_base_units: int) -> Decimal:
        """Return the energy of an amount in kWh."""
        return Decimal(self.base_units_to_wh(amount_base_units)).scaleb(-3)

    def token_text(self, amount_base_units: int) -> str:
        """Return an amount as tokens with all decimals, without a float on the way."""
        if not self.decimals:
            return str(amount_base_units)
        whole, part = divmod(amount_base_units, 10**self.decimals)
        return f"{whole}.{part:0{self.decimals}d}"


def conversion(kwh_to_token_ratio: Decimal, decimals: int) -> Conversion:
    """Return the rate of a configuration.

    Raises:
        ConfigError: One Wh is no whole number of base units (`UnreasonablePrecision`).
    """
    exact = kwh_to_token_ratio.scaleb(decimals - 3)
    if exact != exact.to_integral_value() or exact <= 0:
        raise ConfigError(
            (
                f"UnreasonablePrecision: ratio {kwh_to_token_ratio} with {decimals} decimals makes"
                f" {exact:f} base units per Wh; choose a ratio that makes a whole number",
            )
        )
    return Conversion(int(exact), decimals)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a refused credit waits, and how often it is tried again."""

    initial_s: int = 300
    multiplier: Decimal = Decimal(2)
    max_s: int = 3600
    max_attempts: int = 3


def retry_delay_s(attempt: int, policy: RetryPolicy) -> int:
    """Return the wait in whole seconds before retry number *attempt* (1, 2, 3 ...).

    0 for attempts before the first, never falling, never above the policy's maximum.
    """
    if attempt <= 0:
        return 0
    growth = policy.multiplier ** min(attempt - 1, _LARGEST_EXPONENT)
    return int(min(policy.initial_s * growth, Decimal(policy.max_s)))


def is_parked(attempts: int, policy: RetryPolicy) -> bool:
    """Tell whether a credit refused *attempts* times now waits for an operator."""
    return attempts > policy.max_attempts


def owner_percentile(user_id: str) -> int:
    """Return 0..99, the same for an owner for ever: below the configured share = auto-minted."""
    return int.from_bytes(hashlib.sha256(user_id.encode()).digest()[:8], "big") % 100


def _bounded(amount: int, what: str) -> int:
    if amount < 0:
        raise ValidationError("NegativeAmount", f"{what}: a credit is never negative")
    if amount > STORE_MAX:
        raise ValidationError(
            "AmountExceedsMaximum", f"{what}: {amount} base units exceed {STORE_MAX}"
        )
    return amount
