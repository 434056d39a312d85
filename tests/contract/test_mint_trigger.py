"""A pass that an operator asks for, over both stores."""

from collections.abc import Callable

import pytest

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.mint_trigger import SqlMintTrigger
from gridtokenx_cloud.errors import FloodedError


def test_a_wish_outlives_the_programs_and_ends_when_its_pass_was_made(
    new_store: Callable[[], Database],
) -> None:
    database = new_store()
    trigger = SqlMintTrigger(database)
    before = trigger.state()

    first = trigger.ask("token:ops", 1_000)
    with pytest.raises(FloodedError) as refused:
        SqlMintTrigger(database).ask("token:other", 60_999)
    second = trigger.ask("token:ops", 61_000)
    waiting = SqlMintTrigger(database).state()
    trigger.done(second)
    after = trigger.state()
    database.close()

    assert (before, first, second) == ((0, 0), 1, 2)
    assert refused.value.wait_s == 1
    assert (waiting, after) == ((2, 0), (2, 2))


def test_a_clock_that_was_set_back_does_not_forbid_a_pass(
    new_store: Callable[[], Database],
) -> None:
    database = new_store()
    trigger = SqlMintTrigger(database)
    trigger.ask("token:ops", 3_600_000)

    number = trigger.ask("token:ops", 1_000)
    database.close()

    assert number == 2
