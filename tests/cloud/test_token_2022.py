"""The whole loop with a Token-2022 mint that carries its own name: nothing differs but the id."""

from pathlib import Path

import pytest
from solders.compute_budget import set_compute_unit_limit
from solders.instruction import AccountMeta, Instruction
from solders.message import Message
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.localnet.packet import decode_transaction
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN_2022
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.mint_rules import MintRules
from tests.support.mint_world import CONVERSION, PAYER, World, minter, new_world, wallet

V0, V1, LEGACY = TransactionFormat.V0, TransactionFormat.V1, TransactionFormat.LEGACY
BURN, CLOSE = 8, 9


def by_holder(world: World, owner: int, code: int, data: bytes = b"") -> None:
    """Let a holder's own transaction land in the next block."""
    key = wallet(owner)
    account = AccountMeta(world.token.account_of(key.pubkey()), is_signer=False, is_writable=True)
    other = world.token.mint if code == BURN else PAYER.pubkey()
    metas = [
        account,
        AccountMeta(other, is_signer=False, is_writable=True),
        AccountMeta(key.pubkey(), is_signer=True, is_writable=False),
    ]
    instruction = Instruction(TOKEN_2022, bytes([code]) + data, metas)
    listed = [set_compute_unit_limit(30_000), instruction]
    message = Message.new_with_blockhash(listed, PAYER.pubkey(), world.chain.tip.hash)
    raw = bytes(VersionedTransaction(message, [PAYER, key]))
    world.chain.submit(decode_transaction(raw, v1=True))


@pytest.mark.parametrize(
    ("form", "owners", "transactions"), [(LEGACY, 12, 1), (V0, 33, 1), (V1, 57, 1)]
)
async def test_a_full_transaction_of_every_format_mints_to_all_and_the_audit_agrees(
    tmp_path: Path, form: TransactionFormat, owners: int, transactions: int
) -> None:
    world = await new_world(TOKEN_2022, "Grid token", "GTX")
    rules = MintRules(conversion=CONVERSION, form=form, batch_size=200)

    with minter(world, tmp_path / "cloud.db", rules) as m:
        for owner in range(owners):
            m.credit(owner, 1000 + owner)
        await m.service.drain()
        report = await m.audit()
        states = m.database.connection.execute("SELECT state FROM mint_batches").fetchall()

    assert report.ok
    assert [row["state"] for row in states] == ["final"] * transactions
    assert world.supply() == CONVERSION.wh_to_base_units(sum(1000 + n for n in range(owners)))
    assert world.balance(wallet(3).pubkey()) == CONVERSION.wh_to_base_units(1003)


async def test_what_holders_burned_is_no_difference_and_a_closed_account_is_made_again(
    tmp_path: Path,
) -> None:
    world = await new_world(TOKEN_2022, "Grid token", "GTX")

    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        await m.service.drain()
        by_holder(world, 1, BURN, CONVERSION.wh_to_base_units(500).to_bytes(8, "little"))
        world.chain.advance()
        by_holder(world, 1, CLOSE)
        await world.sleep(20)
        m.credit(1, 700)
        m.credit(2, 300)
        await m.service.drain()
        report = await m.audit()

    assert report.ok
    assert report.sums.burned_base_units == CONVERSION.wh_to_base_units(500)
    assert world.balance(wallet(1).pubkey()) == CONVERSION.wh_to_base_units(700)


async def test_an_account_closed_under_a_mint_in_flight_costs_nobody_else_anything(
    tmp_path: Path,
) -> None:
    world = await new_world(TOKEN_2022, "Grid token", "GTX")
    await world.solana().create_token_accounts([str(wallet(n).pubkey()) for n in (1, 2, 3)])
    await world.sleep(20)
    closed: list[int] = []

    def close_before_the_mint_lands(method: str) -> None:
        if method == "sendTransaction" and not closed:
            closed.append(1)
            by_holder(world, 2, CLOSE)

    with minter(world, tmp_path / "cloud.db") as m:
        for owner in (1, 2, 3):
            m.credit(owner, 500)
        world.rpc.tap = close_before_the_mint_lands
        await m.service.drain()
        outcomes = m.database.connection.execute("SELECT outcome FROM mint_attempts ORDER BY n")
        report = await m.audit()

        assert [row["outcome"] for row in outcomes] == ["failed", "landed"]
    assert report.ok
    assert world.supply() == CONVERSION.wh_to_base_units(1_500)


async def test_a_program_that_computes_more_than_was_simulated_is_no_recipients_fault(
    tmp_path: Path,
) -> None:
    world = await new_world(TOKEN_2022, "Grid token", "GTX")
    original = world.rpc.call

    async def call(method: str, *params: object) -> object:
        reply = await original(method, *params)
        if method == "simulateTransaction":
            reply["value"]["unitsConsumed"] = 500
        return reply

    world.rpc.call = call  # type: ignore[method-assign]
    with minter(world, tmp_path / "cloud.db") as m:
        for owner in (1, 2):
            m.credit(owner, 500)
        await m.service.drain()
        attempts = m.database.connection.execute(
            "SELECT outcome, error FROM mint_attempts ORDER BY n"
        ).fetchall()
        held = m.database.connection.execute(
            "SELECT count(*) AS n FROM mint_items WHERE held_reason IS NOT NULL"
        ).fetchone()
        report = await m.audit()

    assert "ProgramFailedToComplete" in attempts[0]["error"]
    assert attempts[-1]["outcome"] == "landed"
    assert held["n"] == 0
    assert report.ok
