"""The minting service over a real store and an in-process chain."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from solders.compute_budget import set_compute_unit_limit
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.localnet.packet import decode_transaction
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN
from gridtokenx_cloud.errors import StoreBusyError
from gridtokenx_cloud.mint_rules import MintRules
from gridtokenx_cloud.ports.mint import Refusal, Selection, UnmintedReading
from gridtokenx_cloud.settle import MintingHaltedError
from tests.support.mint_world import (
    AUTHORITY,
    CONVERSION,
    PAYER,
    Minter,
    World,
    minter,
    new_world,
    wallet,
)
from tests.support.store_rows import told

RULES = MintRules(conversion=CONVERSION)
HOUR_MS = 3_600_000


@pytest.fixture
async def world() -> World:
    return await new_world()


@pytest.fixture
async def m(world: World, tmp_path: Path) -> AsyncIterator[Minter]:
    with minter(world, tmp_path / "cloud.db") as made:
        yield made


def one(minter_: Minter, sql: str) -> object:
    return minter_.database.connection.execute(sql).fetchone()[0]


async def submit(world: World, *instructions: Instruction, signers: list[Keypair]) -> None:
    """Land a transaction of somebody else, and make it final."""
    message = Message.new_with_blockhash(list(instructions), PAYER.pubkey(), world.chain.tip.hash)
    raw = bytes(VersionedTransaction(message, [PAYER, *signers]))
    world.chain.submit(decode_transaction(raw, v1=True))
    await world.sleep(20)


async def test_credits_become_tokens_of_their_owners(m: Minter, world: World) -> None:
    m.credit(1, 500, 1500)
    m.credit(2, 42)

    left = await m.service.drain()

    assert (left.unminted, left.waiting, left.live_batches) == (0, 0, 0)
    assert world.balance(wallet(1).pubkey()) == 2_000_000_000
    assert world.balance(wallet(2).pubkey()) == 42_000_000
    assert (await m.audit()).ok


async def test_owners_and_operators_hear_of_a_mint_once(m: Minter) -> None:
    m.credit(1, 500, 1500)
    m.credit(2, 42)

    await m.service.drain()

    assert sorted((stream, name) for stream, _, name in told(m.database)) == [
        ("admin", "BatchMintingCompleted"),
        ("admin", "TokensMinted"),
        ("admin", "TokensMinted"),
        ("user:user-1", "TokensMinted"),
        ("user:user-2", "TokensMinted"),
    ]


async def test_every_move_of_a_batch_is_in_the_audit_log(m: Minter) -> None:
    m.credit(1, 500)

    await m.service.drain()

    actions = m.database.connection.execute("SELECT action FROM audit_log ORDER BY entry")
    assert [row["action"] for row in actions] == [
        "batch_sealed",
        "attempt_signed",
        "attempt_sent",
        "batch_final",
    ]


async def test_the_real_fee_is_recorded(m: Minter, world: World) -> None:
    m.credit(1, 500)

    await m.service.drain()

    signature = one(m, "SELECT signature FROM mint_batches")
    assert one(m, "SELECT fee_lamports FROM mint_batches") == await world.history().fee_lamports(
        str(signature)
    )


async def test_results_match_the_readings_given_one_to_one(m: Minter) -> None:
    good = m.credit(1, 500, 700)
    [too_much] = m.credit(2, 10**8)
    readings = m.service.fetch_unminted_readings(50)

    results = await m.service.process_batch(readings)

    by_id = {result.reading_id: result for result in results}
    assert set(by_id) == {*good, too_much}
    assert all(by_id[number].success for number in good)
    assert by_id[good[0]].tx_signature == by_id[good[1]].tx_signature
    assert by_id[too_much].error_code == "AmountExceedsMaximum"
    assert not by_id[too_much].success


async def test_what_finds_no_place_in_a_pass_stays_unminted(world: World, tmp_path: Path) -> None:
    rules = replace(RULES, max_batch_size=1, max_transactions_per_batch=1)
    with minter(world, tmp_path / "cloud.db", rules) as m:
        first = m.credit(1, 500)
        second = m.credit(2, 500)

        results = await m.service.process_batch(m.service.fetch_unminted_readings(50))

        assert [result.success for result in results] == [True, False]
        assert [result.reading_id for result in results] == [*first, *second]
        assert results[1].batch_id is None


async def test_a_wallet_that_is_no_persons_waits_with_a_reason(m: Minter, world: World) -> None:
    m.credit(1, 500)
    with m.database.transaction() as tx:
        off_curve = str(world.token.account_of(wallet(1).pubkey()))
        tx.execute("UPDATE users SET wallet = ?", (off_curve,))

    left = await m.service.drain()

    assert left.waiting == 1
    assert one(m, "SELECT error_code FROM minting_retry_queue") == "InvalidWalletAddress"
    heard = [stream for stream, _, name in told(m.database) if name == "MintingFailed"]
    assert heard == ["admin", "user:user-1"]


async def test_dust_waits_for_company_but_no_longer_than_a_day(
    world: World, tmp_path: Path
) -> None:
    with minter(world, tmp_path / "c.db", replace(RULES, mint_threshold_wh=1000)) as m:
        m.credit(1, 400)
        m.credit(2, 400, 600)

        now = [reading.user_id for reading in m.service.fetch_unminted_readings(50)]
        world.clock.at_ms += 24 * HOUR_MS
        a_day_later = m.service.fetch_unminted_readings(50)

    assert now == ["user-2", "user-2"]
    assert len(a_day_later) == 3


async def test_draining_takes_the_dust_too(world: World, tmp_path: Path) -> None:
    rules = replace(RULES, mint_threshold_wh=1000, auto_mint_percentage=0, auto_mint_enabled=False)
    with minter(world, tmp_path / "c.db", rules) as m:
        m.credit(1, 1)

        await m.service.drain()

    assert world.supply() == 1_000_000


async def test_automatic_minting_may_be_for_a_share_of_owners(world: World, tmp_path: Path) -> None:
    with minter(world, tmp_path / "c.db", replace(RULES, auto_mint_percentage=50)) as m:
        for owner in range(1, 41):
            m.credit(owner, 1000)

        chosen = m.service.fetch_unminted_readings(1000)
        again = m.service.fetch_unminted_readings(1000)

    assert 10 < len(chosen) < 30
    assert chosen == again


async def test_due_retries_take_at_most_half_of_a_pass(m: Minter, world: World) -> None:
    refused = m.credit(1, *range(1, 11))
    m.store.refuse(refused, Refusal("RecipientRefused", "frozen"), world.clock.now_ms())
    fresh = m.credit(2, *range(1, 11))

    too_early = m.service.fetch_unminted_readings(10)
    world.clock.at_ms += 300_000
    due = m.service.fetch_unminted_readings(10)

    assert {reading.reading_id for reading in too_early} == set(fresh)
    assert len({reading.reading_id for reading in due} & set(refused)) == 5
    assert len(due) == 10


async def test_with_automatic_minting_off_sealed_batches_still_end(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "cloud.db"
    with minter(world, path) as m:
        m.credit(1, 500)
        m.service._seal(m.service._validated(m.service.fetch_unminted_readings(5)), 1)
        m.credit(2, 500)
    with minter(world, path, replace(RULES, auto_mint_enabled=False)) as m:
        stop = asyncio.Event()
        running = asyncio.create_task(m.service.run(stop, asyncio.Event()))
        for _ in range(2000):
            await asyncio.sleep(0)
            if not m.store.live_batches():
                break
        stop.set()
        await running

        assert world.balance(wallet(1).pubkey()) == 500_000_000
        assert world.balance(wallet(2).pubkey()) == 0


async def test_a_pass_that_an_operator_asks_for_seals_all_that_is_due_though_minting_is_off(
    world: World, tmp_path: Path
) -> None:
    rules = replace(RULES, auto_mint_enabled=False, batch_size=2, polling_interval_s=3600)
    with minter(world, tmp_path / "cloud.db", rules) as m:
        stop = asyncio.Event()
        running = asyncio.create_task(m.service.run(stop, asyncio.Event()))
        m.credit(1, 100, 200, 300)
        await m.service.pass_now()
        sealed = one(m, "SELECT sum(total_wh) FROM mint_batches")
        m.credit(1, 400)
        await asyncio.sleep(0)
        stop.set()
        await running

        assert sealed == 600
        assert one(m, "SELECT sum(credit_wh) FROM mint_queue") == 400


async def test_a_pass_waits_for_what_halts_the_minting(world: World, tmp_path: Path) -> None:
    rules = replace(RULES, auto_mint_enabled=False, polling_interval_s=3600)
    with minter(world, tmp_path / "cloud.db", rules) as m:
        m.credit(1, 500)
        m.service.halt(0, "an old backup")
        asked = asyncio.create_task(m.service.pass_now())
        await asyncio.sleep(0)

        m.service._try_pass()
        while_halted = asked.done()
        m.service._driving.lift(0)
        m.service._try_pass()
        # The queue was shorter than a batch, so this pass took all there was.
        await asked

        assert not while_halted
        assert one(m, "SELECT count(*) FROM mint_batches") == 1
        await m.service._driving.put_down()


async def test_a_committed_credit_wakes_the_service(world: World, tmp_path: Path) -> None:
    rules = replace(RULES, auto_trigger_on_submit=True, polling_interval_s=3600)
    with minter(world, tmp_path / "cloud.db", rules) as m:
        stop, wake = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(m.service.run(stop, wake))
        await asyncio.sleep(0)
        m.credit(1, 500)
        sent_at_ms = world.clock.now_ms()
        wake.set()
        for _ in range(5000):
            await asyncio.sleep(0)
            if world.supply() and not m.store.live_batches():
                break
        stop.set()
        await running

        took_ms = world.clock.now_ms() - sent_at_ms
        assert one(m, "SELECT minted FROM meter_readings") == 1
        # Wake 2 s, account and mint 1 block each, finality 12.8 s, polling.
        assert took_ms <= 20_000


async def _freeze_proof_world(m: Minter, world: World) -> None:
    """Give the token account of owner 2 to somebody else, which the classic program allows."""
    await world.solana().create_token_accounts([str(wallet(n).pubkey()) for n in (1, 2, 3)])
    account = world.token.account_of(wallet(2).pubkey())
    data = bytes([6, 2, 1]) + bytes(Keypair.from_seed(b"z" * 32).pubkey())
    accounts = [
        AccountMeta(account, is_signer=False, is_writable=True),
        AccountMeta(wallet(2).pubkey(), is_signer=True, is_writable=False),
    ]
    await submit(world, Instruction(TOKEN, data, accounts), signers=[wallet(2)])


async def test_a_recipient_whose_account_changed_hands_is_held_and_the_rest_is_minted(
    m: Minter, world: World
) -> None:
    await _freeze_proof_world(m, world)
    for owner in (1, 2, 3):
        m.credit(owner, 500)

    left = await m.service.drain()

    assert left.waiting == 1
    assert one(m, "SELECT COUNT(*) FROM mint_batches") == 1
    assert one(m, "SELECT held_reason FROM mint_items WHERE held_reason IS NOT NULL") == (
        "RecipientRefused: the token account was given to another owner"
    )
    assert world.supply() == 1_000_000_000
    assert (await m.audit()).ok


async def test_a_batch_without_a_good_recipient_is_void_and_its_credit_waits(
    m: Minter, world: World
) -> None:
    await _freeze_proof_world(m, world)
    m.credit(2, 500)

    left = await m.service.drain()

    assert (left.waiting, one(m, "SELECT state FROM mint_batches")) == (1, "void")
    assert (await m.audit()).ok


async def test_a_recipient_that_fails_only_on_chain_is_found_by_its_instruction(
    m: Minter, world: World
) -> None:
    await world.solana().create_token_accounts([str(wallet(n).pubkey()) for n in (1, 2, 3)])
    await world.sleep(20)
    for owner in (1, 2, 3):
        m.credit(owner, 500)
    closed: list[int] = []

    def close_account_before_the_mint_lands(method: str) -> None:
        if method == "sendTransaction" and not closed:
            closed.append(1)
            account = world.token.account_of(wallet(2).pubkey())
            metas = [
                AccountMeta(account, is_signer=False, is_writable=True),
                AccountMeta(PAYER.pubkey(), is_signer=False, is_writable=True),
                AccountMeta(wallet(2).pubkey(), is_signer=True, is_writable=False),
            ]
            close = Instruction(TOKEN, bytes([9]), metas)
            message = Message.new_with_blockhash(
                [set_compute_unit_limit(9_000), close], PAYER.pubkey(), world.chain.tip.hash
            )
            raw = bytes(VersionedTransaction(message, [PAYER, wallet(2)]))
            world.chain.submit(decode_transaction(raw, v1=True))

    world.rpc.tap = close_account_before_the_mint_lands

    await m.service.drain()

    outcomes = m.database.connection.execute("SELECT outcome FROM mint_attempts ORDER BY n")
    assert [row["outcome"] for row in outcomes] == ["failed", "landed"]
    assert world.supply() == 1_500_000_000
    assert (await m.audit()).ok


async def test_a_payer_without_money_waits_and_goes_on_when_it_has_some(
    m: Minter, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.solana().create_token_accounts([str(wallet(1).pubkey())])
    await world.sleep(20)
    m.credit(1, 500)
    poor: list[float] = []
    original = world.rpc.call

    async def call(method: str, *params: object) -> object:
        if method == "simulateTransaction" and len(poor) < 3:
            poor.append(1)
            return {
                "context": {"slot": 1},
                "value": {"err": "InsufficientFundsForFee", "unitsConsumed": 0},
            }
        return await original(method, *params)

    world.rpc.call = call  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        await m.service.drain()

    assert world.supply() == 500_000_000
    assert [r.message for r in caplog.records].count("fee_payer_low") == 1


async def test_a_wrong_authority_stops_new_batches_and_says_why(m: Minter, world: World) -> None:
    stranger = Keypair.from_seed(b"z" * 32).pubkey()
    data = bytes([6, 0, 1]) + bytes(stranger)
    metas = [
        AccountMeta(world.token.mint, is_signer=False, is_writable=True),
        AccountMeta(AUTHORITY.pubkey(), is_signer=True, is_writable=False),
    ]
    await submit(world, Instruction(TOKEN, data, metas), signers=[AUTHORITY])
    m.credit(1, 500)

    with pytest.raises(MintingHaltedError, match="not the mint's authority"):
        await m.service.drain()

    assert world.supply() == 0
    assert one(m, "SELECT COUNT(*) FROM meter_readings WHERE minted = 1") == 0


async def test_the_signers_daily_cap_stops_a_batch_before_it_leaves(
    world: World, tmp_path: Path
) -> None:
    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        m.service._minter._chain = world.solana(cap=499_999_999)

        with pytest.raises(MintingHaltedError, match="per day"):
            await m.service.drain()

    assert world.supply() == 0


async def test_readings_that_changed_under_a_final_batch_make_it_disputed(
    m: Minter, world: World
) -> None:
    m.credit(1, 500, 700)

    def lose_a_reading(method: str) -> None:
        if method == "getSignatureStatuses":
            with m.database.transaction() as tx:
                tx.execute("UPDATE meter_readings SET batch_id = NULL WHERE credit_wh = 700")

    world.rpc.tap = lose_a_reading

    with pytest.raises(MintingHaltedError, match="1 of its 2 readings"):
        await m.service.drain()

    assert one(m, "SELECT state FROM mint_batches") == "disputed"
    assert not (await m.audit()).ok


async def test_a_mint_the_store_does_not_know_is_an_alarm(m: Minter, world: World) -> None:
    m.credit(1, 500)
    await m.service.drain()
    data = bytes([7]) + (10**6).to_bytes(8, "little")
    metas = [
        AccountMeta(world.token.mint, is_signer=False, is_writable=True),
        AccountMeta(world.token.account_of(wallet(1).pubkey()), is_signer=False, is_writable=True),
        AccountMeta(AUTHORITY.pubkey(), is_signer=True, is_writable=False),
    ]
    await submit(world, Instruction(TOKEN, data, metas), signers=[AUTHORITY])

    report = await m.audit()

    assert {difference.code for difference in report.differences} == {
        "UnknownMint",
        "SupplyDiffers",
    }


async def test_an_attempt_no_node_kept_expires_and_the_next_lands_under_the_same_marker(
    m: Minter, world: World
) -> None:
    await world.solana().create_token_accounts([str(wallet(1).pubkey())])
    m.credit(1, 500)
    world.chain.faults.drop_silently = 45

    await m.service.drain()

    outcomes = m.database.connection.execute("SELECT outcome FROM mint_attempts ORDER BY n")
    assert [row["outcome"] for row in outcomes] == ["expired", "landed"]
    assert world.supply() == 500_000_000
    assert (await m.audit()).ok


async def test_the_log_tells_each_step_once_with_the_signature_of_every_attempt(
    m: Minter, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.solana().create_token_accounts([str(wallet(1).pubkey())])
    m.credit(1, 500)
    m.credit(2, 10**8)
    world.chain.faults.drop_silently = 45

    with caplog.at_level(logging.INFO, "gridtokenx_cloud"):
        await m.service.drain()

    told = [record for record in caplog.records if record.name.startswith("gridtokenx_cloud")]
    assert [record.message for record in told] == [
        "cycle_started",
        "readings_fetched",
        "retry_scheduled",
        "batch_sealed",
        "cycle_finished",
        "attempt_signed",
        "attempt_sent",
        "batch_slow",
        "attempt_expired",
        "attempt_signed",
        "attempt_sent",
        "batch_final",
    ]
    signatures = {
        row["signature"]
        for row in m.database.connection.execute("SELECT signature FROM mint_attempts")
    }
    assert {getattr(r, "signature", None) for r in told if "attempt" in r.message} == signatures


async def test_trouble_with_the_store_puts_a_pass_off(m: Minter, world: World) -> None:
    m.credit(1, 500)
    original, busy = m.store.fetch_unminted, [1]

    def fetch(selection: Selection) -> list[UnmintedReading]:
        if busy:
            busy.clear()
            raise StoreBusyError("no write lock within 15 s")
        return original(selection)

    m.store.fetch_unminted = fetch  # type: ignore[method-assign]

    assert not m.service._try_pass()
    await m.service.drain()

    assert world.supply() == 500_000_000


async def test_a_node_that_has_not_seen_a_new_account_holds_nobody(m: Minter, world: World) -> None:
    m.credit(1, 500)
    original, doubts = world.rpc.call, [1, 1, 1]

    async def call(method: str, *params: object) -> object:
        if method == "simulateTransaction" and doubts:
            doubts.pop()
            err = {"InstructionError": [1, "InvalidAccountData"]}
            return {"context": {"slot": 1}, "value": {"err": err}}
        return await original(method, *params)

    world.rpc.call = call  # type: ignore[method-assign]

    left = await m.service.drain()

    assert left.waiting == 0
    assert world.supply() == 500_000_000


async def test_a_recipient_that_keeps_failing_in_simulation_is_held(
    m: Minter, world: World
) -> None:
    m.credit(1, 500)
    original = world.rpc.call

    async def call(method: str, *params: object) -> object:
        if method == "simulateTransaction":
            err = {"InstructionError": [1, {"Custom": 99}]}
            return {"context": {"slot": 1}, "value": {"err": err}}
        return await original(method, *params)

    world.rpc.call = call  # type: ignore[method-assign]

    left = await m.service.drain()

    assert left.waiting == 1
    assert world.supply() == 0
