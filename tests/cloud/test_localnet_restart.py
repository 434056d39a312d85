"""The chain goes on after its process died at any moment."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Finalized, Processed
from solana.rpc.models import TxOpts
from solders.pubkey import Pubkey
from solders.signature import Signature

from gridtokenx_cloud.adapters.localnet import Localnet
from gridtokenx_cloud.adapters.localnet.chain import MAX_AGE_BLOCKS
from gridtokenx_cloud.errors import ConfigError
from tests.support.localnet import (
    PAYER,
    funded_chain,
    incoming,
    lamports,
    mint_tokens,
    pay,
    signed,
    supply,
)

SOL = 10**9
SKIP = TxOpts(skip_preflight=True, max_retries=0)
PROGRAM = """
import asyncio, pathlib, sys
from gridtokenx_cloud.adapters.localnet import run_localnet
asyncio.run(run_localnet("127.0.0.1", 0, block_ms=5, state_file=pathlib.Path(sys.argv[1]),
                         on_ready=lambda url: print(url, flush=True)))
"""


def test_a_chain_resumes_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "chain.db"
    with closing(funded_chain(state_file=path)) as chain:
        chain.submit(incoming(signed(chain.tip.hash, mint_tokens(5))))
        waiting = incoming(signed(chain.tip.hash, mint_tokens(7)))
        chain.advance(3)
        tip, genesis, history = chain.tip, chain.genesis_hash, chain.store.blocks()

    with closing(Localnet(path)) as resumed:
        at_start = (resumed.tip, resumed.genesis_hash, resumed.store.blocks())
        final = supply(resumed, "finalized")
        resumed.submit(waiting)
        resumed.advance()

        assert at_start == (tip, genesis, history)
        assert final == 5
        assert supply(resumed) == 12
        assert resumed.tip.height == tip.height + 1
        assert len(resumed.store.by_address(PAYER.pubkey(), resumed.tip.slot, None, None, 9)) == 4


def test_an_account_that_was_closed_stays_closed(tmp_path: Path) -> None:
    path = tmp_path / "chain.db"
    with closing(funded_chain(state_file=path)) as chain:
        everything = lamports(chain, PAYER.pubkey()) - 5000
        to = Pubkey.new_unique()
        chain.submit(incoming(signed(chain.tip.hash, pay(to, everything))))
        chain.advance()

    with closing(Localnet(path)) as resumed:
        assert resumed.account_at(PAYER.pubkey(), resumed.tip) is None
        assert lamports(resumed, to) == everything


def test_a_lost_fork_stays_lost_and_its_slots_are_not_used_again(tmp_path: Path) -> None:
    path = tmp_path / "chain.db"
    with closing(funded_chain(state_file=path)) as chain:
        chain.submit(incoming(signed(chain.tip.hash, mint_tokens(5))))
        chain.advance(3)
        highest_slot = chain.tip.slot
        chain.drop_fork(3)

    with closing(Localnet(path)) as resumed:
        resumed.advance()

        assert supply(resumed) == 0
        assert resumed.tip.slot == highest_slot + 1


def test_two_processes_cannot_share_a_chain(tmp_path: Path) -> None:
    path = tmp_path / "chain.db"

    with closing(Localnet(path)), pytest.raises(ConfigError, match="locked"):
        Localnet(path)


@asynccontextmanager
async def localnet_process(path: Path) -> AsyncIterator[AsyncClient]:
    """Run localnet in its own process; kill it without warning at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    try:
        async with AsyncClient(url, timeout=60) as client:
            yield client
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def pay_and_wait(client: AsyncClient) -> Pubkey:
    """Pay until a payment is seen: on a busy machine one may come too late for its blockhash."""
    while True:
        to, sent = await pay_and_forget(client)
        last = (await client.get_block_height(Processed)).value + MAX_AGE_BLOCKS
        while (await client.get_block_height(Processed)).value <= last:
            if (await client.get_signature_statuses([sent])).value[0] is not None:
                return to
            await asyncio.sleep(0.01)


async def pay_and_forget(client: AsyncClient) -> tuple[Pubkey, Signature]:
    to = Pubkey.new_unique()
    latest = (await client.get_latest_blockhash(Processed)).value.blockhash
    return to, (await client.send_transaction(signed(latest, pay(to, SOL)), SKIP)).value


@pytest.mark.integration
async def test_what_was_seen_survives_kill_9_and_the_rest_landed_whole_or_not_at_all(
    tmp_path: Path,
) -> None:
    path = tmp_path / "chain.db"
    paid: list[Pubkey] = []
    unknown: list[tuple[Pubkey, Signature]] = []
    genesis, seen = set(), []
    for life in range(5):
        async with localnet_process(path) as client:
            genesis.add((await client.get_genesis_hash()).value)
            seen.append((await client.get_slot(Processed)).value)
            if life == 0:
                drop = await client.request_airdrop(PAYER.pubkey(), 1000 * SOL)
                await client.confirm_transaction(drop.value, Processed, sleep_seconds=0.01)
            for to in paid:
                assert (await client.get_balance(to, Finalized)).value == SOL
            for to, signature in unknown:
                # With history: on a busy machine 300 blocks pass between two lives.
                asked = await client.get_signature_statuses([signature], True)
                status = asked.value[0]
                assert (await client.get_balance(to, Finalized)).value == (SOL if status else 0)
            paid += [await pay_and_wait(client) for _ in range(5)]
            seen.append((await client.get_slot(Processed)).value)
            unknown += [await pay_and_forget(client) for _ in range(20)]

    assert len(genesis) == 1
    assert seen == sorted(seen)
