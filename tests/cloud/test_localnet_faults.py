"""Every way in which localnet can go wrong on command, one test each; and its nodes may disagree.

What LiteSVM lacks of a cluster and localnet supplies (150 blockhashes, one message once, packets,
commitments, nonces, fees of version 1) is in `test_localnet_chain.py`.
"""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.localnet import Localnet
from gridtokenx_cloud.adapters.localnet.faults import Faults
from gridtokenx_cloud.adapters.localnet.rpc import answer
from gridtokenx_cloud.adapters.localnet.server import LocalnetServer, serve
from gridtokenx_cloud.adapters.solana_rpc.rpc import (
    HttpRpc,
    RpcBusyError,
    RpcRefusedError,
)
from gridtokenx_cloud.errors import RpcUnavailableError
from tests.support.localnet import MINT, PAYER, funded_chain, lamports, pay, signed

FINAL = {"commitment": "finalized"}
TO = Pubkey.new_unique()


class Cluster:
    """One chain, and two nodes that answer for it over HTTP."""

    def __init__(self, chain: Localnet, servers: list[LocalnetServer]) -> None:
        self.chain = chain
        self.nodes = [HttpRpc(server.url, 5) for server in servers]
        self.faults = [server.faults for server in servers]
        self._servers = servers

    async def close(self) -> None:
        for node in self.nodes:
            await node.close()
        for server in self._servers:
            await server.close()

    def payment(self, amount: int = 10**9, version: int | None = None) -> tuple[str, str]:
        """Return (signature, base64) of a transfer that may land now."""
        tx = signed(self.chain.tip.hash, pay(TO, amount), version=version)
        return str(tx.signatures[0]), base64.b64encode(bytes(tx)).decode()

    async def send(self, text: str, node: int = 0) -> Any:
        options = {"encoding": "base64", "skipPreflight": True}
        return await self.nodes[node].call("sendTransaction", text, options)

    async def status(self, signature: str, node: int = 0, *, history: bool = True) -> Any:
        options = {"searchTransactionHistory": history}
        reply = await self.nodes[node].call("getSignatureStatuses", [signature], options)
        return reply["value"][0]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    chain = funded_chain()
    made = Cluster(chain, [await serve(chain), await serve(chain, faults=Faults())])
    yield made
    await made.close()
    chain.close()


async def lost_send(c: Cluster) -> None:
    c.faults[0].lose_sends = 1
    signature, text = c.payment()

    with pytest.raises(RpcUnavailableError):
        await c.send(text)
    c.chain.advance(2)

    assert await c.status(signature) is None


async def lost_reply(c: Cluster) -> None:
    c.faults[0].lose_replies = 1
    signature, text = c.payment()

    with pytest.raises(RpcUnavailableError):
        await c.send(text)
    c.chain.advance(2)

    assert (await c.status(signature))["err"] is None


async def silent_drop(c: Cluster) -> None:
    c.faults[0].drop_silently = 1
    signature, text = c.payment()

    assert await c.send(text) == signature
    c.chain.advance(2)

    assert await c.status(signature) is None


async def late_landing(c: Cluster) -> None:
    c.faults[0].land_late_blocks = 5
    signature, text = c.payment()

    await c.send(text)
    c.chain.advance(5)
    early = await c.status(signature)
    c.chain.advance()

    assert early is None
    assert await c.status(signature) is not None


async def landing_in_the_last_valid_block(c: Cluster) -> None:
    c.faults[0].land_in_last_valid_block = True
    signature, text = c.payment()

    await c.send(text)
    c.chain.advance(149)
    early = await c.status(signature)
    c.chain.advance()

    assert early is None
    assert await c.status(signature) is not None


async def a_node_that_is_behind(c: Cluster) -> None:
    c.faults[1].behind_blocks = 130
    signature, text = c.payment()
    await c.send(text)
    c.chain.advance(40)

    slots = [await node.call("getSlot", FINAL) for node in c.nodes]
    hashes = [(await node.call("getLatestBlockhash", FINAL))["value"] for node in c.nodes]

    assert slots[1] < slots[0]
    assert hashes[1]["lastValidBlockHeight"] < hashes[0]["lastValidBlockHeight"]
    assert (await c.status(signature))["confirmationStatus"] == "finalized"
    assert await c.status(signature, 1) is None
    assert await c.nodes[0].call("getHealth") == "ok"
    with pytest.raises(RpcBusyError, match="behind by 130"):
        await c.nodes[1].call("getHealth")


async def a_status_index_that_is_behind(c: Cluster) -> None:
    c.faults[0].status_lag_blocks = 10
    signature, text = c.payment()

    await c.send(text)
    c.chain.advance(5)

    assert await c.status(signature) is None
    assert lamports(c.chain, TO) > 0


async def accounts_that_are_behind(c: Cluster) -> None:
    c.faults[0].account_lag_blocks = 10
    before = lamports(c.chain, TO)

    await c.send(c.payment()[1])
    c.chain.advance(5)
    reply = await c.nodes[0].call("getBalance", str(TO), {"commitment": "processed"})

    assert reply["value"] == before < lamports(c.chain, TO)


async def a_hole_in_the_index(c: Cluster) -> None:
    c.faults[0].hide_statuses = True
    signature, text = c.payment()

    await c.send(text)
    c.chain.advance(40)

    assert await c.status(signature) is None
    assert await c.status(signature, 1) is not None


async def no_history(c: Cluster) -> None:
    signature, text = c.payment()
    await c.send(text)
    c.chain.advance(400)
    options = {**FINAL, "encoding": "base64"}
    c.faults[1].hide_history = True

    kept = [await c.status(signature, node) is not None for node in (0, 1)]
    shown = [await node.call("getTransaction", signature, options) for node in c.nodes]
    listed = [await node.call("getSignaturesForAddress", str(TO), FINAL) for node in c.nodes]
    first = [await node.call("getFirstAvailableBlock") for node in c.nodes]

    assert kept == [True, False]
    assert [one is not None for one in shown] == [True, False]
    assert [len(one) for one in listed] == [1, 0]
    assert first[0] <= first[1]
    assert await c.status(signature, 0, history=False) is None


async def too_many_requests_by_http(c: Cluster) -> None:
    c.faults[0].http_429_every = 1

    with pytest.raises(RpcBusyError) as busy:
        await c.nodes[0].call("getSlot")

    assert busy.value.retry_after_s == 1.0
    assert await c.nodes[1].call("getSlot")


async def too_many_requests_inside_json(c: Cluster) -> None:
    c.faults[0].rpc_429_every = 1

    with pytest.raises(RpcBusyError, match="429"):
        await c.nodes[0].call("getSlot")

    assert await c.nodes[1].call("getSlot")


async def version_1_off(c: Cluster) -> None:
    c.faults[1].v1 = False
    _, text = c.payment(version=1)

    with pytest.raises(RpcRefusedError):
        await c.send(text, 1)

    assert await c.send(text, 0)


async def another_rent(c: Cluster) -> None:
    before = c.chain.rent_minimum_lamports(0)
    c.faults[0].rent_lamports_per_byte = 5_080
    c.chain.advance()

    assert before == 128 * 6_960
    assert await c.nodes[0].call("getMinimumBalanceForRentExemption", 0) == 128 * 5_080


FAULTS: dict[str, Callable[[Cluster], Awaitable[None]]] = {
    "lose_sends": lost_send,
    "lose_replies": lost_reply,
    "drop_silently": silent_drop,
    "land_late_blocks": late_landing,
    "land_in_last_valid_block": landing_in_the_last_valid_block,
    "behind_blocks": a_node_that_is_behind,
    "status_lag_blocks": a_status_index_that_is_behind,
    "account_lag_blocks": accounts_that_are_behind,
    "hide_statuses": a_hole_in_the_index,
    "hide_history": no_history,
    "http_429_every": too_many_requests_by_http,
    "rpc_429_every": too_many_requests_inside_json,
    "v1": version_1_off,
    "rent_lamports_per_byte": another_rent,
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_on_command_does_what_it_says_at_one_node_only(
    name: str, cluster: Cluster
) -> None:
    await FAULTS[name](cluster)


def test_every_fault_that_can_be_commanded_has_its_test() -> None:
    known = {field.name for field in fields(Faults) if not field.name.startswith("_")}

    assert known == set(FAULTS)


async def test_a_fault_is_switched_on_over_the_wire_at_the_node_that_is_asked(
    cluster: Cluster,
) -> None:
    await cluster.nodes[1].call("gtx_setFaults", {"behind_blocks": 20})

    assert [faults.behind_blocks for faults in cluster.faults] == [0, 20]
    with pytest.raises(RpcRefusedError, match="no fault"):
        await cluster.nodes[0].call("gtx_setFaults", {"behind_blocks": "many"})


async def test_a_confirmed_block_can_be_lost_with_its_fork(cluster: Cluster) -> None:
    signature, text = cluster.payment()
    await cluster.send(text)
    cluster.chain.advance(3)
    before = await cluster.status(signature)

    await cluster.nodes[0].call("gtx_dropFork", 3)
    cluster.chain.advance(3)

    assert before["confirmationStatus"] == "confirmed"
    assert await cluster.status(signature) is None


def test_a_snapshot_is_another_chain_from_that_moment_on(tmp_path: Path) -> None:
    chain = funded_chain()
    chain.snapshot(tmp_path / "then.db")
    chain.airdrop(TO, 10**9)
    chain.advance()

    again = Localnet(tmp_path / "then.db")

    assert again.genesis_hash == chain.genesis_hash
    assert (lamports(chain, TO), lamports(again, TO)) == (10**9, 0)
    assert lamports(again, PAYER.pubkey()) == lamports(chain, PAYER.pubkey())
    again.airdrop(TO, 10**9)
    again.advance()
    assert lamports(again, TO) == 10**9
    again.close()
    chain.close()


def test_a_transaction_is_shown_as_json_and_a_block_has_its_time() -> None:
    chain = funded_chain()
    page = answer(chain, _request("getSignaturesForAddress", str(MINT.pubkey()), {"limit": 1}))
    [entry] = page["result"]

    shown = answer(chain, _request("getTransaction", entry["signature"], {"encoding": "json"}))
    time = answer(chain, _request("getBlockTime", entry["slot"]))

    message = shown["result"]["transaction"]["message"]
    assert message["accountKeys"][0] == str(PAYER.pubkey())
    assert len(message["instructions"]) == 3
    assert time["result"] == entry["blockTime"]
    assert answer(chain, _request("getBlockTime", 1))["result"] is None
    refused = answer(chain, _request("getTransaction", entry["signature"], {"encoding": "x"}))
    assert "base64, json" in refused["error"]["message"]


def _request(method: str, *params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
