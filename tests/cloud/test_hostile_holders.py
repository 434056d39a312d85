"""What a holder of tokens, or any stranger, can do on the chain, and what comes of it here."""

from pathlib import Path

from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.localnet.packet import decode_transaction
from gridtokenx_cloud.adapters.solana_rpc.handover import handover_account
from gridtokenx_cloud.mint_notes import MOST_ACCOUNTS_A_DAY
from gridtokenx_cloud.ports.mint import Backlog
from tests.support.mint_world import AUTHORITY, CONVERSION, PAYER, World, minter, new_world, wallet

DAY_MS = 86_400_000
BATCH, BURN, CLOSE = 255, 8, 9


def send(world: World, instruction: Instruction, *signers: Keypair) -> None:
    message = Message.new_with_blockhash([instruction], PAYER.pubkey(), world.chain.tip.hash)
    raw = bytes(VersionedTransaction(message, [PAYER, *signers]))
    world.chain.submit(decode_transaction(raw, v1=True))


def of_owner(world: World, owner: Keypair, data: bytes, *, closing: bool = False) -> Instruction:
    """Return an instruction on an owner's token account."""
    second = owner.pubkey() if closing else world.token.mint
    accounts = [
        AccountMeta(world.token.account_of(owner.pubkey()), is_signer=False, is_writable=True),
        AccountMeta(second, is_signer=False, is_writable=True),
        AccountMeta(owner.pubkey(), is_signer=True, is_writable=False),
    ]
    return Instruction(world.token.program, data, accounts)


def burn_data(amount: int) -> bytes:
    return bytes([BURN]) + amount.to_bytes(8, "little")


async def test_tokens_that_are_burned_within_a_batch_of_the_token_program_are_no_difference(
    tmp_path: Path,
) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        await m.service.drain()
        inner = burn_data(70)
        send(
            world,
            of_owner(world, wallet(1), bytes([BATCH, 3, len(inner)]) + inner),
            wallet(1),
        )
        await world.sleep(40)
        report = await m.audit()

    assert world.supply() == CONVERSION.wh_to_base_units(500) - 70
    assert report.differences == ()
    assert report.sums.burned_base_units == 70


async def test_lamports_sent_to_where_a_handover_would_stand_stop_neither_minting_nor_audit(
    tmp_path: Path,
) -> None:
    world = await new_world()
    to = handover_account(world.token.mint, AUTHORITY.pubkey())
    gift = TransferParams(from_pubkey=PAYER.pubkey(), to_pubkey=to, lamports=1_000_000)
    send(world, transfer(gift))
    await world.sleep(40)

    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        await m.service.drain()
        report = await m.audit()
        authorities = await world.history().authorities()

    assert report.differences == ()
    assert authorities == (AUTHORITY.pubkey(),)


async def test_an_owner_who_closes_the_account_again_and_again_is_paid_no_rent_for_ever(
    tmp_path: Path,
) -> None:
    world = await new_world()
    owner = wallet(1)
    account = world.token.account_of(owner.pubkey())

    async def empty_and_close() -> None:
        units = world.balance(owner.pubkey())
        send(world, of_owner(world, owner, burn_data(units)), owner)
        await world.sleep(2)
        send(world, of_owner(world, owner, bytes([CLOSE]), closing=True), owner)
        await world.sleep(40)
        assert world.chain.account_at(account, world.chain.block_at("processed")) is None

    with minter(world, tmp_path / "cloud.db") as m:
        for _ in range(MOST_ACCOUNTS_A_DAY):
            m.credit(1, 500)
            assert await m.service.drain() == Backlog(0, 0, 0)
            await empty_and_close()
        m.credit(1, 500)
        m.credit(2, 40)
        refused = await m.service.drain()
        row = m.database.connection.execute("SELECT * FROM minting_retry_queue").fetchone()
        world.clock.at_ms += DAY_MS
        left = await m.service.drain()
        report = await m.audit()

    assert refused == Backlog(0, 1, 0)
    assert row["error_code"] == "RecipientRefused"
    assert "closed each of 3 times" in row["error_message"]
    assert left == Backlog(0, 0, 0)
    assert world.balance(owner.pubkey()) == CONVERSION.wh_to_base_units(500)
    assert report.differences == ()
