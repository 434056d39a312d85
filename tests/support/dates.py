"""Days and months that end while a test runs."""

import time
from datetime import UTC, datetime, timedelta

_LONGEST_S = 60


def see_one_month_only() -> None:
    """Wait for the next month where this one is over before a test is."""
    now = datetime.now(UTC)
    if (now + timedelta(seconds=_LONGEST_S)).month != now.month:
        first = (now.replace(day=28) + timedelta(days=4)).replace(day=1)
        next_month = first.replace(hour=0, minute=0, second=0, microsecond=0)
        time.sleep((next_month - now).total_seconds() + 1)
