"""Mints that went wrong elsewhere, in public reports, must go right here; each names its report."""

import json
import logging
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.account import Account
from solders.compute_budget import set_compute_unit_limit
from solders.instruction import AccountMeta, Instruction
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.localnet.faults import Faults
from gridtokenx_cloud.adapters.localnet.packet import decode_transaction
from gridtokenx_cloud.adapters.localnet.server import serve
from gridtokenx_cloud.adapters.solana_rpc.rpc import HttpRpc, refusal
from gridtokenx_cloud.adapters.solana_rpc.setup import check_chain
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN
from gridtokenx_cloud.adapters.store.mint_rebuild import SqlBatchDesk
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.errors import (
    ChainMismatchError,
    ConfigError,
    RpcUnavailableError,
    ValidationError,
)
from gridtokenx_cloud.settle import MintingHaltedError
from gridtokenx_cloud.tokenization import conversion
from gridtokenx_wire.encoding import encode_line, parse_line
from gridtokenx_wire.signing import RECORD_DOMAIN, open_sealed, signer
from tests.support import build_cloud
from tests.support.build_cloud import GATEWAY
from tests.support.crash import CrashError
from tests.support.mint_world import (
    CONVERSION,
    PAYER,
    InProcessRpc,
    Minter,
    World,
    minter,
    new_world,
    wallet,
)

OWNER = wallet(1).pubkey()
OWED = CONVERSION.wh_to_base_units(500)


async def world_with_account() -> World:
    """Return a world where the first owner's token account is there, so that only mints follow."""
    world = await new_world()
    await world.solana().create_token_accounts([str(OWNER)])
    await world.sleep(20)
    world.rpc.calls.clear()
    return world


async def exactly_once(world: World, m: Minter, attempts: list[str]) -> None:
    await world.sleep(400 * world.block_s)
    found = m.database.connection.execute("SELECT outcome FROM mint_attempts ORDER BY n")
    assert [row["outcome"] for row in found] == attempts
    assert world.supply() == world.balance(OWNER) == OWED
    assert (await m.audit()).ok


def die_at(method_to_die_at: str, *, after_a_send: bool = True) -> Callable[[str], None]:
    sent: list[int] = []

    def tap(method: str) -> None:
        if method == method_to_die_at and (sent or not after_a_send):
            raise CrashError
        if method == "sendTransaction":
            sent.append(1)

    return tap


async def killed_and_restarted(world: World, path: Path, tap: Callable[[str], None]) -> None:
    with minter(world, path) as m:
        m.credit(1, 500)
        world.rpc.tap = tap
        with pytest.raises(CrashError):
            await m.service.drain()
    world.rpc.tap = lambda _method: None


async def test_a_send_that_landed_and_whose_answer_was_cut_off_is_not_sent_anew(
    tmp_path: Path,
) -> None:
    """See solana-labs/solana#10597, solana-web3.js#968: signed anew after a lost answer."""
    world = await world_with_account()
    world.chain.faults.lose_replies = 100

    await killed_and_restarted(world, tmp_path / "cloud.db", die_at("getSignatureStatuses"))

    with minter(world, tmp_path / "cloud.db") as m:
        await m.service.drain()
        await exactly_once(world, m, ["landed"])


async def test_statuses_that_are_missing_for_140_blocks_are_no_failure(tmp_path: Path) -> None:
    """See magicblock-validator#1605: a confirmation that timed out was called transient."""
    world = await world_with_account()
    world.chain.faults.hide_statuses = True
    seen_again = world.chain.tip.height + 140

    def tap(_method: str) -> None:
        if world.chain.tip.height >= seen_again:
            world.chain.faults.hide_statuses = False

    world.rpc.tap = tap
    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        await m.service.drain()

        await exactly_once(world, m, ["landed"])


@pytest.mark.parametrize(
    "tap", [die_at("sendTransaction", after_a_send=False), die_at("getSignatureStatuses")]
)
async def test_a_minter_killed_before_or_after_the_send_goes_on_with_the_same_signature(
    tmp_path: Path, tap: Callable[[str], None]
) -> None:
    """See helium/oracles#770, #958, #650, #930, #957: restarts with a transaction in flight."""
    world = await world_with_account()

    await killed_and_restarted(world, tmp_path / "cloud.db", tap)

    with minter(world, tmp_path / "cloud.db") as m:
        await m.service.drain()
        await exactly_once(world, m, ["landed"])


class LoadBalanced:
    """One URL, two nodes: some methods are answered by one that is behind."""

    def __init__(self, world: World, behind: Faults, methods: frozenset[str]) -> None:
        self._behind = InProcessRpc(world.chain, faults=behind)
        self._methods = methods
        self._current = world.rpc.call
        world.rpc.call = self.call  # type: ignore[method-assign]

    async def call(self, method: str, *params: Any) -> Any:
        node = self._behind.call if method in self._methods else self._current
        return await node(method, *params)


async def test_an_unknown_status_from_a_node_behind_expires_nothing(tmp_path: Path) -> None:
    """See solana-labs/solana#15705, anza-xyz/agave#3787, #9028: nodes behind one URL disagree."""
    world = await world_with_account()
    world.chain.faults.land_in_last_valid_block = True
    statuses = frozenset({"getSignatureStatuses", "getAccountInfo"})
    LoadBalanced(world, Faults(behind_blocks=60), statuses)

    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        await m.service.drain()

        await exactly_once(world, m, ["landed"])


@pytest.mark.parametrize("fault", ["http_429_every", "rpc_429_every"])
async def test_a_node_that_has_enough_of_us_every_second_time_delays_and_doubles_nothing(
    tmp_path: Path, fault: str
) -> None:
    """See praskoson/distribution-tools#13, solana#9856, solana-web3.js#3178: 429 meant failed."""
    world = await world_with_account()
    server = await serve(world.chain)
    client = HttpRpc(server.url, timeout_s=30)
    world.rpc.call = client.call  # type: ignore[method-assign]
    setattr(world.chain.faults, fault, 2)
    try:
        with minter(world, tmp_path / "cloud.db") as m:
            m.credit(1, 500)
            await m.service.drain()
            setattr(world.chain.faults, fault, 0)

            await exactly_once(world, m, ["landed"])
    finally:
        await client.close()
        await server.close()


@pytest.mark.parametrize("code", [429, -32429])
def test_too_many_requests_in_either_spelling_is_a_reason_to_wait(code: int) -> None:
    """See praskoson/distribution-tools#13: HTTP 200 whose body says 429."""
    assert isinstance(refusal("getSlot", code, "Too many requests"), RpcUnavailableError)


async def test_a_node_that_does_not_know_our_blockhash_yet_delivers_all_the_same(
    tmp_path: Path,
) -> None:
    """See pay-kit#328, unchained#1284, brave-browser#24345, vultisig-android#5110: preflight."""
    world = await world_with_account()
    LoadBalanced(
        world, Faults(behind_blocks=60), frozenset({"sendTransaction", "simulateTransaction"})
    )

    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        await m.service.drain()

        await exactly_once(world, m, ["landed"])


async def test_a_failure_on_a_fork_that_is_lost_is_no_failure(tmp_path: Path) -> None:
    """See vultisig-android#5233: an error at confirmed was taken for final."""
    world = await world_with_account()
    original, state = world.chain.advance, {"sent": 0, "lost": 0}

    def fail_the_first(method: str) -> None:
        if method == "sendTransaction" and not state["sent"]:
            state["sent"] = world.chain.tip.height
            world.chain.submit(decode_transaction(_closing(world), v1=True))

    def advance(blocks: int = 1) -> None:
        original(blocks)
        if state["sent"] and not state["lost"] and world.chain.tip.height > state["sent"] + 5:
            failed = world.chain.store.by_address(world.token.mint, 2**62, None, None, 1)
            assert failed[0].err is not None
            state["lost"] = 1
            world.chain.drop_fork(world.chain.tip.height - state["sent"])

    world.rpc.tap, world.chain.advance = fail_the_first, advance  # type: ignore[method-assign]
    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        await m.service.drain()

        assert state["lost"]
        await exactly_once(world, m, ["landed"])


def _closing(world: World) -> bytes:
    """Return the owner's own transaction that closes his empty token account."""
    metas = [
        AccountMeta(world.token.account_of(OWNER), is_signer=False, is_writable=True),
        AccountMeta(PAYER.pubkey(), is_signer=False, is_writable=True),
        AccountMeta(OWNER, is_signer=True, is_writable=False),
    ]
    listed = [set_compute_unit_limit(9_000), Instruction(TOKEN, bytes([9]), metas)]
    message = Message.new_with_blockhash(listed, PAYER.pubkey(), world.chain.tip.hash)
    return bytes(VersionedTransaction(message, [PAYER, wallet(1)]))


async def test_an_hour_without_nodes_after_the_send_is_reported_and_ends_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """See elizaOS/eliza#10628: retries ran out, the row was never looked at again, nobody told."""
    world = await world_with_account()
    back_at_ms: list[int] = []
    owed_meanwhile: list[str] = []

    with minter(world, tmp_path / "cloud.db") as m:

        def down(method: str) -> None:
            if method == "getSignatureStatuses" and not back_at_ms:
                back_at_ms.append(world.clock.now_ms() + 3_600_000)
            if back_at_ms and world.clock.now_ms() < back_at_ms[0]:
                [row] = m.database.connection.execute("SELECT state FROM mint_batches")
                owed_meanwhile.append(row["state"])
                raise RpcUnavailableError("down")

        world.rpc.tap = down
        m.credit(1, 500)
        with caplog.at_level(logging.WARNING):
            await m.service.drain()

        assert set(owed_meanwhile) == {"in_flight"}
        assert "batch_slow" in [record.message for record in caplog.records]
        await exactly_once(world, m, ["landed"])


async def test_a_chain_that_forgot_the_transaction_still_has_its_marker(tmp_path: Path) -> None:
    """See anza-xyz/agave#2156, solana-labs/solana#35605: "no work to do" once it was purged."""
    world = await world_with_account()
    path = tmp_path / "cloud.db"
    await killed_and_restarted(world, path, die_at("getSignatureStatuses"))
    await world.sleep(700 * world.block_s)
    world.chain.faults.hide_history = True

    with minter(world, path) as m:
        await m.service.drain()
        world.chain.faults.hide_history = False

        await exactly_once(world, m, ["landed"])


def test_an_address_that_no_person_can_sign_for_is_no_wallet(tmp_path: Path) -> None:
    """See solana-program-library#2730: a token account of a token account was made."""
    token_account = Pubkey.find_program_address([bytes(OWNER), bytes(TOKEN)], TOKEN)[0]

    with build_cloud.cloud(tmp_path) as cloud:
        for wallet_address in (str(token_account), "not base58", str(OWNER)[:-3]):
            with pytest.raises(ValidationError) as refused:
                cloud.registry.add_user("eve", wallet_address)
            assert refused.value.code == "InvalidWalletAddress"


def test_an_amount_that_is_no_sum_of_powers_of_two_is_exact() -> None:
    """See solana-labs/solana#17712, #13815, origin#1207: 0.134120368 became one unit less."""
    nine = conversion(Decimal(1), 9)

    assert nine.kwh_to_tokens(Decimal("0.134")) == 134_000_000
    assert nine.token_text(134_120_368) == "0.134120368"
    assert nine.wh_to_base_units(100) + nine.wh_to_base_units(200) == nine.wh_to_base_units(300)
    assert conversion(Decimal(1), 3).wh_to_base_units(2**53 + 1) == 9_007_199_254_740_993
    with pytest.raises(ValidationError):
        nine.kwh_to_tokens(Decimal("0.134120368"))


@given(wh=st.integers(0, 2**63 // 10**6))
def test_energy_comes_back_from_tokens_to_the_last_wh(wh: int) -> None:
    """See solana-labs/solana#17712: a float on the way cannot do this."""
    text = CONVERSION.token_text(CONVERSION.wh_to_base_units(wh))

    assert int(Decimal(text).scaleb(9)) == CONVERSION.wh_to_base_units(wh)
    assert CONVERSION.base_units_to_wh(CONVERSION.wh_to_base_units(wh)) == wh


async def test_a_supply_that_is_full_stops_the_mint_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    """See solana-program-library#1983, #2536: u64 overflow."""
    world = await world_with_account()
    mint = world.chain.account_at(world.token.mint, world.chain.tip)
    assert mint is not None
    data = mint.data[:36] + (2**64 - 3).to_bytes(8, "little") + mint.data[44:]
    world.chain._runtime.put({world.token.mint: Account(mint.lamports, data, mint.owner)})

    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        with pytest.raises(MintingHaltedError, match=r"2\*\*64-1"):
            await m.service.drain()
        [reading] = m.database.connection.execute("SELECT minted FROM meter_readings")

    assert not reading["minted"]
    assert "sendTransaction" not in world.rpc.calls


async def test_decimals_that_are_not_the_mint_s_stop_the_start() -> None:
    """See dcccrypto/percolator-launch#149: 18 decimals where 10**decimals overflows."""
    world = await new_world()

    with pytest.raises(ConfigError, match="UnreasonablePrecision"):
        conversion(Decimal("0.5"), 2)
    with pytest.raises(ChainMismatchError, match="decimals of the mint"):
        await check_chain(
            world.rpc,
            type(world.token)(
                world.token.mint, TOKEN, 18, world.token.authority, world.token.payer
            ),
            None,
        )


def test_a_signed_line_is_the_same_bytes_from_the_gateway_to_the_store(tmp_path: Path) -> None:
    """See gridtokenx-chain-bridge's Cargo.toml: one ULP of JSON drift broke 8 % of signatures."""
    with build_cloud.cloud(tmp_path) as cloud:
        line = GATEWAY.line(build_cloud.slot(96, 1_234_567_890_123))
        cloud.take(GATEWAY.message(line))
        [(stored,)] = cloud.rows("SELECT line FROM meter_readings")

    raw = bytes(stored)  # type: ignore[call-overload]
    open_sealed(raw, RECORD_DOMAIN, GATEWAY.key.public_key().public_bytes_raw(), verify)
    assert raw == line == encode_line(parse_line(raw), signer(GATEWAY.key))


async def test_a_status_older_than_the_cache_is_found_in_the_history(tmp_path: Path) -> None:
    """See cardotrejos/x402#78, superbank#57: asked without history, called failed, paid again."""
    world = await world_with_account()
    path = tmp_path / "cloud.db"
    await killed_and_restarted(world, path, die_at("getSignatureStatuses"))
    await world.sleep(400 * world.block_s)

    with minter(world, path) as m:
        await m.service.drain()

        await exactly_once(world, m, ["landed"])


async def test_the_signature_of_every_attempt_is_logged_and_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """See helium-program-library#357: a failure hid the signature that would explain it."""
    world = await world_with_account()
    world.chain.faults.drop_silently = 45

    with minter(world, tmp_path / "cloud.db") as m, caplog.at_level(logging.INFO):
        m.credit(1, 500)
        await m.service.drain()
        shown = SqlBatchDesk(m.database, world.clock, actor="test").show(1)

        await exactly_once(world, m, ["expired", "landed"])
    attempts = json.loads(json.dumps(shown["attempts"]))
    logged = {
        name: [vars(one)["signature"] for one in caplog.records if one.message == name]
        for name in ("attempt_signed", "attempt_expired", "batch_final")
    }
    signatures = [one["signature"] for one in attempts]
    assert logged["attempt_signed"] == signatures
    assert (logged["attempt_expired"], logged["batch_final"]) == (signatures[:1], signatures[1:])


async def test_rent_is_what_the_cluster_takes_on_the_day_and_never_more(tmp_path: Path) -> None:
    """See SIMD-0437: 2,039,280 lamports for a token account were written into programs."""
    world = await new_world()

    with minter(world, tmp_path / "cloud.db") as m:
        for owner, per_byte in enumerate((6_960, 5_080, 2_575), 1):
            world.chain.faults.rent_lamports_per_byte = per_byte
            await world.sleep(61)
            m.credit(owner, 500)
            await m.service.drain()

            row = m.database.connection.execute(
                "SELECT b.marker, i.token_account FROM mint_batches b JOIN mint_items i"
                " ON i.batch_id = b.batch_id ORDER BY b.batch_id DESC"
            ).fetchone()
            assert paid(world, row["marker"]) == 128 * per_byte
            assert paid(world, row["token_account"]) == (128 + 165) * per_byte
        assert (await m.audit()).ok


def paid(world: World, address: str) -> int:
    account = world.chain.account_at(Pubkey.from_string(address), world.chain.tip)
    return account.lamports if account else 0
