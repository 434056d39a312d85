"""Two operators at once, on any store."""

import threading
from collections.abc import Callable, Iterator, Mapping

import pytest

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.overrides import SqlOverrides
from tests.support.build_cloud import FakeClock
from tests.support.stores import another

_LONG_ENOUGH_TO_GO_WRONG_S = 0.2


@pytest.fixture
def database(new_store: Callable[[], Database]) -> Iterator[Database]:
    opened = new_store()
    yield opened
    opened.close()


def test_two_changes_of_settings_are_each_checked_against_what_the_other_left(
    database: Database,
) -> None:
    clock = FakeClock(1)
    other = another(database)
    seen: list[Mapping[str, str]] = []
    second = threading.Thread(
        target=lambda: SqlOverrides(other, clock, actor="two").change(
            {"max_retry_delay_secs": "1800"}, seen.append
        )
    )

    def while_the_first_is_checked(_texts: Mapping[str, str]) -> None:
        second.start()
        second.join(_LONG_ENOUGH_TO_GO_WRONG_S)

    SqlOverrides(database, clock, actor="one").change(
        {"initial_retry_delay_secs": "3600"}, while_the_first_is_checked
    )
    second.join()
    other.close()

    assert seen == [{"initial_retry_delay_secs": "3600", "max_retry_delay_secs": "1800"}]
