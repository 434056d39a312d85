"""A thief mints with our key: what halts, what is written down, what goes on."""

from pathlib import Path
from typing import Any, cast

from solders.instruction import AccountMeta, Instruction
from solders.message import Message
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.localnet.packet import decode_transaction
from gridtokenx_cloud.adapters.store.books import read_books
from gridtokenx_cloud.adapters.store.foreign_mints import SqlForeignMints
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.audit import beside_unknown_mints, unknown_mints
from gridtokenx_cloud.mint_wiring import ConnectedMinter
from gridtokenx_cloud.roles.relay import Relay
from gridtokenx_cloud.roles.settle import SettleRole, _tell
from tests.support.mint_world import (
    AUTHORITY,
    CONVERSION,
    PAYER,
    World,
    minter,
    new_world,
    wallet,
)

BATCH, MINT_TO = 255, 7


async def steal(world: World, amount: int) -> str:
    """Mint with the stolen key, hidden in a batch of the token program; return the signature."""
    account = world.token.account_of(wallet(1).pubkey())
    accounts = [
        AccountMeta(world.token.mint, is_signer=False, is_writable=True),
        AccountMeta(account, is_signer=False, is_writable=True),
        AccountMeta(AUTHORITY.pubkey(), is_signer=True, is_writable=False),
    ]
    inner = bytes([MINT_TO]) + amount.to_bytes(8, "little")
    hidden = Instruction(world.token.program, bytes([BATCH, 3, len(inner)]) + inner, accounts)
    message = Message.new_with_blockhash([hidden], PAYER.pubkey(), world.chain.tip.hash)
    tx = VersionedTransaction(message, [PAYER, AUTHORITY])
    world.chain.submit(decode_transaction(bytes(tx), v1=True))
    await world.sleep(40)
    return str(tx.signatures[0])


async def test_a_thiefs_mint_halts_the_minting_until_an_operator_has_declared_it_foreign(
    tmp_path: Path,
) -> None:
    world = await new_world()
    path = tmp_path / "cloud.db"
    with minter(world, path) as m:
        m.credit(1, 500)
        await m.service.drain()
        stolen = await steal(world, 10**6)
        report = await m.audit()
        nothing: Any = None
        parts = ConnectedMinter(
            m.service, nothing, nothing, CONVERSION, nothing, cast(Any, nothing)
        )
        _tell(report, parts)
        halted = m.service.halted
        mint = await world.history().mint_of(stolen)
        assert mint is not None
        SqlForeignMints(m.database, world.clock, actor="cli:test").acknowledge(mint, "case 4711")
    with minter(world, path) as m:
        strangers = await unknown_mints(SqlAuditStore(m.database), world.history())
        m.credit(1, 40)
        await m.service.drain()
        after = await m.audit()
        books = read_books(m.database, world.clock.now_ms())

    assert {one.code for one in report.differences} == {"UnknownMint", "SupplyDiffers"}
    assert beside_unknown_mints(report) == []
    assert len(halted) == 1
    assert stolen in halted[0]
    assert strangers == []
    assert after.differences == ()
    assert after.sums.foreign_base_units == books.foreign_base_units == 10**6


def test_the_figures_say_whether_the_last_audit_found_anything() -> None:
    nothing: Any = None
    role = SettleRole(nothing, Relay(), 3600, nothing)

    before = [one.name for one in role.figures()]
    role._differences = 2

    assert before == []
    assert [(one.name, one.value) for one in role.figures()] == [("audit_differences", 2)]
