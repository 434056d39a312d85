"""One mint authority hands over to the next, on a chain without sockets."""

from dataclasses import replace
from pathlib import Path

import pytest
from solders.compute_budget import set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.keystore import LocalSigner
from gridtokenx_cloud.adapters.solana_rpc.handover import (
    HandoverSigner,
    former_authority,
    handover_account,
    handover_instructions,
)
from gridtokenx_cloud.adapters.solana_rpc.history import SolanaHistory
from gridtokenx_cloud.adapters.solana_rpc.sending import Sender
from gridtokenx_cloud.adapters.solana_rpc.setup import read_token
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN, Token
from gridtokenx_cloud.errors import SigningKeyError
from gridtokenx_cloud.settle import MintingHaltedError
from tests.support.mint_world import AUTHORITY, PAYER, World, minter, new_world

NEXT, THIRD, STRANGER = (Keypair.from_seed(bytes([n]) * 32) for n in (21, 22, 23))
MINT = Keypair.from_seed(b"m" * 32).pubkey()
THE_TOKEN = Token(MINT, TOKEN, 9, AUTHORITY.pubkey(), PAYER.pubkey())
RENT_LAMPORTS = 890_880


async def hand_over(world: World, present: Keypair, following: Keypair) -> None:
    token = replace(world.token, authority=present.pubkey())
    instructions = handover_instructions(token, following.pubkey(), RENT_LAMPORTS)
    signers = [
        HandoverSigner(LocalSigner(pair), instructions) for pair in (PAYER, present, following)
    ]
    sender = Sender(world.failover, token, signers, world.clock, sleep=world.sleep)

    async def done() -> bool:
        return (await read_token(world.rpc, token.mint)).authority == following.pubkey()

    assert await sender.until(instructions, done)


async def test_whoever_knows_the_present_authority_finds_all_former_ones_on_chain() -> None:
    world = await new_world()
    await hand_over(world, AUTHORITY, NEXT)
    await hand_over(world, NEXT, THIRD)
    token = await read_token(world.rpc, world.token.mint)

    found = await SolanaHistory(world.failover, token).authorities()

    assert found == (THIRD.pubkey(), NEXT.pubkey(), AUTHORITY.pubkey())


async def test_what_the_former_authority_minted_is_still_a_mint_to_everybody(
    tmp_path: Path,
) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db") as one:
        one.credit(1, 500)
        await one.service.drain()
        [signature] = one.database.connection.execute(
            "SELECT mint_tx_signature FROM meter_readings"
        ).fetchone()
    await hand_over(world, AUTHORITY, NEXT)
    history = SolanaHistory(world.failover, await read_token(world.rpc, world.token.mint))

    mint = await history.mint_of(signature)
    known = [one async for one in history.newest_mints(frozenset({signature}))]
    unknown = [one.signature async for one in history.newest_mints(frozenset())]

    assert mint is not None
    assert mint.by_former
    assert sum(mint.payments.values()) == 500 * 10**6
    assert known == []
    assert unknown == [signature]


async def test_the_former_key_mints_no_more(tmp_path: Path) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db") as one:
        await hand_over(world, AUTHORITY, NEXT)
        one.credit(1, 500)

        with pytest.raises(MintingHaltedError, match="authority"):
            await one.service.drain()

    assert world.supply() == 0


def message(instructions: list[Instruction]) -> bytes:
    return to_bytes_versioned(
        Message.new_with_blockhash(instructions, PAYER.pubkey(), Hash.default())
    )


HANDOVER = handover_instructions(THE_TOKEN, NEXT.pubkey(), RENT_LAMPORTS)
REFUSED = {
    "another authority": handover_instructions(THE_TOKEN, STRANGER.pubkey(), RENT_LAMPORTS),
    "half of it": HANDOVER[1:],
    "nothing": [],
    "a dearer account": handover_instructions(THE_TOKEN, NEXT.pubkey(), 10**9),
    "another token": handover_instructions(
        replace(THE_TOKEN, mint=STRANGER.pubkey()), NEXT.pubkey(), RENT_LAMPORTS
    ),
    "something beside it": [
        *HANDOVER,
        transfer(
            TransferParams(from_pubkey=PAYER.pubkey(), to_pubkey=STRANGER.pubkey(), lamports=1)
        ),
    ],
    "nobody as the authority": [
        HANDOVER[0],
        Instruction(TOKEN, b"\x06\x00\x00", HANDOVER[1].accounts),
    ],
    "the right to freeze": [
        HANDOVER[0],
        Instruction(TOKEN, b"\x06\x01" + bytes(HANDOVER[1].data)[2:], HANDOVER[1].accounts),
    ],
}


@pytest.mark.parametrize("name", REFUSED)
async def test_in_a_handover_nothing_else_is_signed(name: str) -> None:
    signer = HandoverSigner(LocalSigner(AUTHORITY), HANDOVER)

    with pytest.raises(SigningKeyError, match="refuses all but the one handover"):
        await signer.sign(message(REFUSED[name]))


async def test_the_handover_itself_is_signed_at_any_price_it_needs() -> None:
    signer = HandoverSigner(LocalSigner(AUTHORITY), HANDOVER)
    body = message([*HANDOVER, set_compute_unit_price(5_000)])

    assert await signer.sign(body) == bytes(AUTHORITY.sign_message(body))


def test_what_only_looks_like_a_handover_names_no_former_authority() -> None:
    def landed(*instructions: Instruction) -> bytes:
        body = Message.new_with_blockhash(list(instructions), STRANGER.pubkey(), Hash.default())
        return bytes(VersionedTransaction(body, [STRANGER]))

    named = AccountMeta(handover_account(MINT, NEXT.pubkey()), False, False)
    mine = AccountMeta(STRANGER.pubkey(), True, False)
    data = bytes(HANDOVER[1].data)
    lies = [
        landed(Instruction(STRANGER.pubkey(), data, [AccountMeta(MINT, False, True), mine])),
        landed(Instruction(TOKEN, data, [AccountMeta(STRANGER.pubkey(), False, True), mine])),
        landed(Instruction(TOKEN, data[:-1] + b"\x00", [AccountMeta(MINT, False, True), mine])),
        landed(Instruction(TOKEN, data, [AccountMeta(MINT, False, True)])),
        landed(Instruction(STRANGER.pubkey(), b"", [named])),
    ]

    found = [former_authority(raw, THE_TOKEN, NEXT.pubkey()) for raw in lies]

    assert found == [None] * 5


def test_the_account_of_a_handover_differs_by_token_and_by_authority() -> None:
    pairs = [(MINT, NEXT), (MINT, THIRD), (STRANGER.pubkey(), NEXT)]

    accounts = {handover_account(mint, following.pubkey()) for mint, following in pairs}

    assert len(accounts) == 3
    assert all(isinstance(account, Pubkey) for account in accounts)
