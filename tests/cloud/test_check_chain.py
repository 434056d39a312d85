"""Go or no-go: each thing that minting needs, found wrong, is named with its way out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.localnet.faults import Faults
from gridtokenx_cloud.adapters.solana_rpc.checks import Check, Wanted
from gridtokenx_cloud.adapters.solana_rpc.preflight import preflight
from gridtokenx_cloud.adapters.solana_rpc.rpc import RpcRefusedError
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN, TOKEN_2022
from gridtokenx_cloud.adapters.store.books import read_books
from gridtokenx_cloud.errors import RpcUnavailableError
from gridtokenx_cloud.ports.upkeep import Books
from tests.support.mint_world import InProcessRpc, World, minter, new_world, wallet

BOOKS = Books(
    minted_base_units=0,
    open_base_units=0,
    oldest_signature=None,
    day_lamports=0,
    day_transactions=0,
    tables=(),
)


def wanted(world: World) -> Wanted:
    genesis = str(world.chain.genesis_hash)
    now_ms = world.chain.tip.unix_s * 1000
    bounds = (1_000, 10**6)
    return Wanted(world.token, genesis, "auto", 100, bounds, lambda: BOOKS, lambda: now_ms)


def noes(checks: list[Check]) -> list[str]:
    return [one.name for one in checks if one.ok is False]


@pytest.mark.parametrize("program", [TOKEN, TOKEN_2022])
async def test_a_cluster_that_fits_is_a_go(program: object) -> None:
    world = await new_world(TOKEN if program == TOKEN else TOKEN_2022)
    await world.sleep(40)

    checks = await preflight(world.failover, wanted(world))

    assert noes(checks) == []
    assert [one.name for one in checks] == [
        "endpoints",
        "health",
        "genesis hash",
        "endpoints agree",
        "finality",
        "clock",
        "mint",
        "token program",
        "decimals",
        "mint authority",
        "extensions",
        "freeze authority",
        "room in the supply",
        "supply",
        "history",
        "lookup tables",
        "transaction format",
        "fee payer",
        "fee of a signature",
        "fee of a mint",
        "rent",
        "roles",
        "programs",
    ]
    assert all(one.detail and not one.way_out for one in checks)


WRONG_SETTINGS: dict[str, Callable[[World, Wanted], Wanted]] = {
    "genesis hash": lambda _, fits: replace(fits, genesis_hash="1" * 32),
    "decimals": lambda w, fits: replace(fits, token=replace(w.token, decimals=6)),
    "token program": lambda w, fits: replace(fits, token=replace(w.token, program=TOKEN_2022)),
    "mint authority": lambda w, fits: replace(
        fits, token=replace(w.token, authority=wallet(1).pubkey())
    ),
    "fee payer": lambda _, fits: replace(fits, low_transactions=10**9),
    "transaction format": lambda _, fits: replace(fits, format="v1"),
    "mint": lambda w, fits: replace(fits, token=replace(w.token, mint=wallet(1).pubkey())),
    "clock": lambda _, fits: replace(fits, now_ms=lambda: fits.now_ms() + 300_000),
    "history": lambda _, fits: replace(
        fits, books=lambda: replace(BOOKS, oldest_signature="1" * 64)
    ),
}


@pytest.mark.parametrize("name", WRONG_SETTINGS)
async def test_each_setting_that_does_not_fit_is_a_no_with_its_way_out(name: str) -> None:
    world = await new_world()
    await world.sleep(40)
    world.chain.faults.v1 = False

    checks = await preflight(world.failover, WRONG_SETTINGS[name](world, wanted(world)))

    # Of a mint that is not there nothing is remembered either.
    assert noes(checks) == ([name, "history"] if name == "mint" else [name])
    assert all(one.way_out for one in checks if one.ok is False)


WRONG_NODES: dict[str, tuple[Faults, bool]] = {
    "endpoints": (Faults(), True),
    "health": (Faults(behind_blocks=140), False),
    "endpoints agree": (Faults(behind_blocks=200), False),
    "history": (Faults(hide_history=True), False),
}


@pytest.mark.parametrize("name", WRONG_NODES)
async def test_one_bad_node_of_several_is_found_and_numbered(name: str) -> None:
    world = await new_world()
    await world.sleep(160)
    faults, dead = WRONG_NODES[name]

    def up(_method: str) -> None:
        return

    def down(_method: str) -> None:
        raise RpcUnavailableError("no route")

    rpc = world.failover_over(
        world.rpc, InProcessRpc(world.chain, down if dead else up, faults=faults)
    )

    checks = await preflight(rpc, wanted(world))

    found = {one.name: one for one in checks if one.ok is False}
    assert name in found
    assert "2" in found[name].detail + found[name].way_out


async def test_a_supply_the_store_can_not_explain_is_a_no_and_burns_are_not(
    tmp_path: Path,
) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        await m.service.drain()
        books = read_books(m.database, world.clock.now_ms())
        fits = replace(wanted(world), books=lambda: books)
        checks = {one.name: one for one in await preflight(world.failover, fits)}
        less = replace(books, minted_base_units=books.minted_base_units - 1)
        more = replace(books, minted_base_units=books.minted_base_units + 1)

        foreign = await preflight(world.failover, replace(fits, books=lambda: less))
        burned = await preflight(world.failover, replace(fits, books=lambda: more))

    assert noes(list(checks.values())) == []
    assert "days at 1 mints a day" in checks["fee payer"].detail
    assert noes(foreign) == ["supply"]
    assert noes(burned) == []
    assert "1 burned or missing" in {one.name: one for one in burned}["supply"].detail


async def test_without_a_store_the_chain_is_checked_all_the_same() -> None:
    world = await new_world()
    await world.sleep(40)

    checks = await preflight(world.failover, replace(wanted(world), books=lambda: None))

    assert noes(checks) == []
    assert {one.name: one.ok for one in checks}["supply"] is None


async def test_a_freeze_key_that_signs_every_day_is_a_no() -> None:
    world = await new_world()
    await world.sleep(40)
    mint = world.chain.account_at(world.token.mint, world.chain.tip)
    assert mint is not None
    for key, verdict in ((world.token.payer, ["freeze authority"]), (wallet(1).pubkey(), [])):
        data = mint.data[:46] + (1).to_bytes(4, "little") + bytes(key)
        world.chain._runtime.put({world.token.mint: type(mint)(mint.lamports, data, mint.owner)})

        assert noes(await preflight(world.failover, wanted(world))) == verdict


async def test_a_check_that_can_not_be_made_is_not_passed() -> None:
    world = await new_world()
    await world.sleep(40)

    def no_fees(method: str) -> None:
        if method == "getRecentPrioritizationFees":
            raise RpcRefusedError(method, -32601, "Method not found")

    world.rpc.tap = no_fees
    checks = await preflight(world.failover, wanted(world))

    assert noes(checks) == ["payer"]
