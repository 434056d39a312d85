"""A signer's caps hold whatever it is asked to sign in between."""

import pytest
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.system_program import TransferWithSeedParams, transfer_with_seed

from gridtokenx_cloud.adapters.keystore import LocalSigner, PolicySigner, SignerPolicy
from gridtokenx_cloud.adapters.solana_rpc.transactions import (
    TOKEN,
    MintContent,
    Token,
    mint_instructions,
)
from gridtokenx_cloud.batching import Markers
from gridtokenx_cloud.errors import SigningKeyError
from gridtokenx_cloud.mint_rules import MintRules
from gridtokenx_cloud.tokenization import STORE_MAX, U64_MAX
from tests.support.mint_world import CONVERSION

AUTHORITY = Keypair.from_seed(b"a" * 32)
PAYER, MINT, OTHER = (Keypair.from_seed(bytes([n]) * 32).pubkey() for n in (2, 3, 4))
THE_TOKEN = Token(MINT, TOKEN, 9, AUTHORITY.pubkey(), PAYER)
MARKERS = Markers(b"s" * 32, str(AUTHORITY.pubkey()), str(MINT))


def message(*instructions: Instruction) -> bytes:
    return to_bytes_versioned(Message.new_with_blockhash(instructions, PAYER, Hash.default()))


def mint(amount: int, batch_id: int = 1) -> bytes:
    marker = Pubkey.from_string(MARKERS.address(batch_id))
    content = MintContent("gm1", marker, MARKERS.seed(batch_id), 890_880, ((OTHER, amount),))
    return message(*mint_instructions(THE_TOKEN, content))


def empty(batch_id: int) -> bytes:
    return message(
        transfer_with_seed(
            TransferWithSeedParams(
                from_pubkey=Pubkey.from_string(MARKERS.address(batch_id)),
                from_base=AUTHORITY.pubkey(),
                from_seed=MARKERS.seed(batch_id),
                from_owner=SYSTEM,
                to_pubkey=PAYER,
                lamports=890_880,
            )
        )
    )


async def test_a_marker_that_was_emptied_does_not_open_the_daily_cap_again() -> None:
    policy = SignerPolicy(str(MINT), str(TOKEN), str(PAYER), 1000, 1500)
    now_ms = [0]
    signer = PolicySigner(LocalSigner(AUTHORITY), policy, lambda: now_ms[0])

    await signer.sign(mint(1000))
    await signer.sign(mint(1000))
    await signer.sign(empty(1))
    with pytest.raises(SigningKeyError, match="1500 per day"):
        await signer.sign(mint(1000))
    await signer.sign(mint(500))
    now_ms[0] = 86_400_000

    assert len(await signer.sign(mint(1000))) == 64


def test_a_batch_never_grows_beyond_what_the_store_can_write_down() -> None:
    rules = MintRules(conversion=CONVERSION, max_base_units_per_transaction=U64_MAX)

    assert rules.limits.max_base_units == STORE_MAX
