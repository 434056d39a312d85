"""Making a token's mint, and refusing one that would break what we promise."""

import struct
from collections.abc import Callable

import pytest
from solders.account import Account
from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.keystore import LocalSigner
from gridtokenx_cloud.adapters.localnet.params import shown_account
from gridtokenx_cloud.adapters.solana_rpc.mint_account import Metadata, MintAccount, read_mint
from gridtokenx_cloud.adapters.solana_rpc.mint_creation import MintCost, MintCreation, MintSpec
from gridtokenx_cloud.adapters.solana_rpc.rpc import RpcRefusedError
from gridtokenx_cloud.adapters.solana_rpc.setup import airdrop, check_chain
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN, TOKEN_2022
from gridtokenx_cloud.errors import ChainMismatchError, ValidationError
from tests.support.mint_world import AUTHORITY, PAYER, World, new_world, wallet

NAMED = MintSpec(
    TOKEN_2022, 9, AUTHORITY.pubkey(), "Grid token", "GTX", "https://energy.example/gtx.json"
)
PLAIN = MintSpec(TOKEN, 9, AUTHORITY.pubkey(), number=2)


def creation(world: World, spec: MintSpec) -> MintCreation:
    signers = LocalSigner(PAYER), LocalSigner(AUTHORITY)
    return MintCreation(world.rpc, spec, *signers, sleep=world.sleep)


def lamports(world: World, address: Pubkey) -> int:
    account = world.chain.account_at(address, world.chain.tip)
    return account.lamports if account else 0


def on_chain(world: World, address: Pubkey) -> MintAccount:
    return read_mint(address, shown_account(world.chain.account_at(address, world.chain.tip), {}))


@pytest.mark.parametrize("spec", [NAMED, PLAIN])
async def test_a_mint_is_made_as_asked_and_takes_what_was_said(spec: MintSpec) -> None:
    world = await new_world()
    cost = await creation(world, spec).cost()

    address = await creation(world, spec).make()

    made = on_chain(world, address)
    assert (made.program, made.decimals, made.supply) == (spec.program, 9, 0)
    assert (made.authority, made.freeze_authority) == (AUTHORITY.pubkey(), None)
    assert made.refusals() == ()
    assert cost.payer_lamports - lamports(world, PAYER.pubkey()) == cost.lamports
    assert cost.rent_lamports == lamports(world, address)


async def test_name_symbol_and_uri_stand_in_the_mint_for_ever() -> None:
    world = await new_world()

    address = await creation(world, NAMED).make()

    assert on_chain(world, address).metadata == Metadata(
        "Grid token", "GTX", "https://energy.example/gtx.json", update_authority=None
    )


class Killed(Exception):  # noqa: N818 - a death, no error
    """The process ends here."""


def killed_at(number: int) -> Callable[[str], None]:
    left = iter(range(number))

    def tap(_method: str) -> None:
        if next(left, None) is None:
            raise Killed

    return tap


@pytest.mark.parametrize("spec", [NAMED, PLAIN])
async def test_a_creation_killed_before_any_call_is_found_by_the_next_and_nothing_is_made_twice(
    spec: MintSpec,
) -> None:
    world = await new_world()
    address, deaths = None, 0
    while address is None:
        world.rpc.tap = killed_at(deaths)
        try:
            address = await creation(world, spec).make()
        except Killed:
            deaths += 1
            world.chain.advance(deaths % 4)
    world.rpc.tap = lambda _method: None
    before = lamports(world, PAYER.pubkey())

    again = await creation(world, spec).make()

    assert deaths > 5
    assert again == address == spec.address
    assert lamports(world, PAYER.pubkey()) == before
    assert await creation(world, spec).cost() == MintCost(0, 0, before)


async def test_sol_sent_to_the_address_beforehand_stops_nothing() -> None:
    world = await new_world()
    await airdrop(world.rpc, NAMED.address, 10**7, world.sleep)

    address = await creation(world, NAMED).make()

    assert on_chain(world, address).authority == AUTHORITY.pubkey()


async def test_a_refusal_of_the_cluster_is_told_and_another_number_makes_another_token() -> None:
    world = await new_world()
    poor = LocalSigner(wallet(9))
    with pytest.raises(RpcRefusedError):
        await MintCreation(world.rpc, PLAIN, poor, LocalSigner(AUTHORITY)).make()

    assert MintSpec(TOKEN, 9, AUTHORITY.pubkey()).address != PLAIN.address


async def test_a_mint_whose_authority_moved_on_is_not_handed_out_as_new() -> None:
    world = await new_world()
    address = await creation(world, PLAIN).make()
    account = world.chain.account_at(address, world.chain.tip)
    assert account is not None
    data = account.data[:4] + bytes(wallet(1).pubkey()) + account.data[36:]
    world.chain._runtime.put({address: Account(account.lamports, data, account.owner)})

    with pytest.raises(ChainMismatchError, match="another --number"):
        await creation(world, PLAIN).make()


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (MintSpec(TOKEN, 9, AUTHORITY.pubkey(), "Grid token", "GTX"), "MetadataNotCarried"),
        (MintSpec(TOKEN, 9, AUTHORITY.pubkey(), uri="https://a.example"), "MetadataNotCarried"),
        (MintSpec(TOKEN_2022, 9, AUTHORITY.pubkey(), "Grid token"), "MetadataIncomplete"),
        (MintSpec(TOKEN_2022, 9, AUTHORITY.pubkey(), uri="https://a.ex"), "MetadataIncomplete"),
        (MintSpec(TOKEN_2022, 9, AUTHORITY.pubkey(), "x" * 33, "GTX"), "MetadataTooLong"),
    ],
)
def test_what_a_mint_can_not_carry_is_refused_before_anything_is_sent(
    spec: MintSpec, code: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        spec.check()

    assert refused.value.code == code


async def test_the_longest_name_symbol_and_uri_fit() -> None:
    world = await new_world()
    longest = MintSpec(TOKEN_2022, 9, AUTHORITY.pubkey(), "n" * 32, "s" * 10, "u" * 200)

    address = await creation(world, longest).make()

    assert on_chain(world, address).metadata == Metadata("n" * 32, "s" * 10, "u" * 200, None)


def extended(mint: Account, kind: int, content: bytes, freezer: Pubkey | None = None) -> Account:
    data = mint.data[:82]
    if freezer is not None:
        data = data[:46] + (1).to_bytes(4, "little") + bytes(freezer)
    data = data.ljust(165, b"\0") + b"\1" + struct.pack("<HH", kind, len(content)) + content
    return Account(mint.lamports, data, mint.owner)


@pytest.mark.parametrize(
    ("kind", "content", "why"),
    [
        (1, bytes(108), "TransferFeeConfig"),
        (3, b"a" * 32, "MintCloseAuthority"),
        (4, bytes(65), "ConfidentialTransferMint"),
        (6, b"\2", "DefaultAccountState"),
        (9, b"", "NonTransferable"),
        (10, bytes(52), "InterestBearingConfig"),
        (12, b"a" * 32, "PermanentDelegate"),
        (14, b"a" * 64, "TransferHook"),
        (16, bytes(129), "ConfidentialTransferFeeConfig"),
        (24, bytes(196), "ConfidentialMintBurn"),
        (25, bytes(56), "ScaledUiAmount"),
        (26, bytes(33), "Pausable"),
        (28, bytes(33), "PermissionedBurn"),
        (99, bytes(4), "extension 99"),
    ],
)
async def test_no_energy_is_minted_with_a_token_that_somebody_could_bend(
    kind: int, content: bytes, why: str
) -> None:
    world = await new_world(TOKEN_2022)
    mint = world.chain.account_at(world.token.mint, world.chain.tip)
    assert mint is not None
    bent = read_mint(world.token.mint, shown_account(extended(mint, kind, content), {}))
    world.chain._runtime.put({world.token.mint: extended(mint, kind, content)})

    with pytest.raises(ChainMismatchError, match=why):
        await check_chain(world.rpc, world.token, None)

    assert [reason.partition(":")[0] for reason in bent.refusals()] == [why]


@pytest.mark.parametrize(
    ("kind", "content"), [(3, bytes(32)), (12, bytes(32)), (14, bytes(64)), (6, b"\1"), (18, b"")]
)
async def test_an_extension_that_nobody_can_use_is_no_obstacle(kind: int, content: bytes) -> None:
    world = await new_world(TOKEN_2022)
    mint = world.chain.account_at(world.token.mint, world.chain.tip)
    assert mint is not None

    found = read_mint(world.token.mint, shown_account(extended(mint, kind, content), {}))

    assert found.refusals() == ()


async def test_accounts_open_by_default_are_an_obstacle_where_somebody_may_close_them() -> None:
    world = await new_world(TOKEN_2022)
    mint = world.chain.account_at(world.token.mint, world.chain.tip)
    assert mint is not None
    shown = shown_account(extended(mint, 6, b"\1", freezer=wallet(1).pubkey()), {})

    assert len(read_mint(world.token.mint, shown).refusals()) == 1


async def test_a_token_account_is_never_taken_for_a_mint() -> None:
    world = await new_world(TOKEN_2022, "Grid token", "GTX")
    account = Account(10**9, bytes(165) + b"\2" + bytes(4), TOKEN_2022)

    for one in (account, Account(10**9, bytes(165), TOKEN), Account(10**9, bytes(82), TOKEN)):
        with pytest.raises(ChainMismatchError):
            read_mint(world.token.mint, shown_account(one, {}))
    with pytest.raises(ChainMismatchError, match="no token program"):
        read_mint(world.token.mint, shown_account(Account(1, b"", Pubkey.default()), {}))
