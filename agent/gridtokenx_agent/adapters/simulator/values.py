"""What a simulated meter is to show."""

from collections.abc import Mapping
from decimal import Decimal

PointValues = Mapping[str, Decimal | str | None]
"""Value of each point in the profile's unit; None and a missing name read "not available"."""
