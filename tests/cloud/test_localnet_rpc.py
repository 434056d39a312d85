"""What a client sees over HTTP when nodes, networks and indexes misbehave."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.localnet import Localnet, serve, tick
from tests.support.localnet import (
    MINT,
    PAYER,
    TOKENS,
    funded_chain,
    mint_tokens,
    pay,
    signed,
    supply,
)


class Node:
    """A JSON-RPC client without any cleverness."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def reply(self, method: str, *params: Any) -> httpx.Response:
        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        return await self._http.post("/", json=body)

    async def call(self, method: str, *params: Any) -> Any:
        answer = (await self.reply(method, *params)).json()
        assert answer["id"] == 7
        return answer["result"] if "result" in answer else answer["error"]

    async def send(self, transaction: VersionedTransaction, **options: Any) -> Any:
        encoded = base64.b64encode(bytes(transaction)).decode()
        return await self.call("sendTransaction", encoded, {"encoding": "base64", **options})

    async def status(self, signature: str, *, history: bool = False) -> Any:
        options = {"searchTransactionHistory": history}
        return await self.call("getSignatureStatuses", [signature], options)


@pytest.fixture
def chain() -> Localnet:
    return funded_chain()


@pytest.fixture
async def node(chain: Localnet) -> AsyncIterator[Node]:
    async with await serve(chain) as server, httpx.AsyncClient(base_url=server.url) as http:
        yield Node(http)


async def test_skipping_preflight_takes_anything_and_drops_it_silently(
    chain: Localnet, node: Node
) -> None:
    bad = signed(chain.genesis_hash, mint_tokens(5))

    refused = await node.send(bad, preflightCommitment="processed")
    taken = await node.send(bad, skipPreflight=True)
    chain.advance()

    assert (refused["code"], refused["data"]["err"]) == (-32002, "BlockhashNotFound")
    assert refused["message"] == "Transaction simulation failed: Blockhash not found"
    assert taken == str(bad.signatures[0])
    assert (await node.status(taken))["value"] == [None]


async def test_preflight_with_a_wrong_signature_or_an_oversized_packet_is_refused(
    chain: Localnet, node: Node
) -> None:
    genuine = signed(chain.tip.hash, mint_tokens(5))
    forged = VersionedTransaction.populate(genuine.message, [PAYER.sign_message(b"other")])
    wide = signed(chain.tip.hash, *[pay(Pubkey.new_unique(), 1) for _ in range(40)])

    assert (await node.send(forged))["code"] == -32003
    assert (await node.send(wide, skipPreflight=True))["code"] == -32602


async def test_a_lost_send_never_happened_and_a_lost_reply_did(chain: Localnet, node: Node) -> None:
    await node.call("gtx_setFaults", {"lose_sends": 1, "lose_replies": 1})
    first = signed(chain.tip.hash, mint_tokens(5))
    second = signed(chain.tip.hash, mint_tokens(7))

    for transaction in (first, second):
        with pytest.raises(httpx.RemoteProtocolError):
            await node.send(transaction, skipPreflight=True)
    chain.advance()

    assert supply(chain) == 7


async def test_the_status_cache_ends_300_slots_behind_finality(chain: Localnet, node: Node) -> None:
    signature = await node.send(signed(chain.tip.hash, mint_tokens(5)), skipPreflight=True)
    chain.advance(331)
    cached = await node.status(signature)
    chain.advance(2)
    forgotten = await node.status(signature)
    found = await node.status(signature, history=True)
    chain.faults.hide_history = True
    pruned = await node.status(signature, history=True)

    assert cached["value"][0]["confirmationStatus"] == "finalized"
    assert forgotten["value"] == [None]
    assert found["value"][0]["err"] is None
    assert pruned["value"] == [None]


async def test_a_status_counts_confirmations_until_it_is_final(chain: Localnet, node: Node) -> None:
    signature = await node.send(signed(chain.tip.hash, mint_tokens(5)), skipPreflight=True)
    seen = []
    for blocks in (1, 1, 30, 1):
        chain.advance(blocks)
        entry = (await node.status(signature))["value"][0]
        seen.append((entry["confirmationStatus"], entry["confirmations"]))

    assert seen == [("processed", 0), ("confirmed", 1), ("confirmed", 31), ("finalized", None)]


async def test_a_lagging_node_says_how_far_it_has_come(chain: Localnet, node: Node) -> None:
    signature = await node.send(signed(chain.tip.hash, mint_tokens(5)), skipPreflight=True)
    chain.advance(33)
    final = {"commitment": "finalized"}
    chain.faults.status_lag_blocks = chain.faults.account_lag_blocks = 20

    status = await node.status(signature)
    stale = await node.call("getTokenSupply", str(MINT.pubkey()), final)
    chain.faults.status_lag_blocks = 60
    behind = await node.status(signature)

    assert status["value"][0]["confirmationStatus"] == "confirmed"
    assert status["context"]["slot"] == chain.tip.slot - 20
    assert (stale["value"]["amount"], stale["context"]["slot"]) == ("0", chain.tip.slot - 52)
    assert behind["value"] == [None]
    assert behind["context"]["slot"] == chain.block_at("processed", 60).slot


async def test_a_hole_in_the_status_index_hides_what_landed(chain: Localnet, node: Node) -> None:
    chain.faults.hide_statuses = True
    signature = await node.send(signed(chain.tip.hash, mint_tokens(5)), skipPreflight=True)
    chain.advance(33)

    assert (await node.status(signature, history=True))["value"] == [None]
    assert supply(chain, "finalized") == 5
    listed = await node.call("getSignaturesForAddress", str(TOKENS))
    assert listed[0]["signature"] == signature


async def test_signatures_of_an_address_are_paged_newest_first(chain: Localnet, node: Node) -> None:
    sent = []
    for amount in range(1, 5):
        sent.append(
            await node.send(signed(chain.tip.hash, mint_tokens(amount)), skipPreflight=True)
        )
        chain.advance()
    chain.advance(1)

    async def page(**options: Any) -> list[str]:
        entries = await node.call(
            "getSignaturesForAddress", str(TOKENS), {"commitment": "confirmed", **options}
        )
        return [entry["signature"] for entry in entries]

    assert (await page(limit=2)) == [sent[3], sent[2]]
    assert (await page(before=sent[2], until=sent[0])) == [sent[1]]
    assert (await page(commitment="finalized"))[:1] != sent[3:]


async def test_a_transaction_of_a_version_the_client_does_not_know_is_refused(
    chain: Localnet, node: Node
) -> None:
    signature = await node.send(
        signed(chain.tip.hash, mint_tokens(5), version=1), skipPreflight=True
    )
    chain.advance(2)
    options = {"encoding": "base64", "commitment": "confirmed"}

    refused = await node.call("getTransaction", signature, options)
    shown = await node.call(
        "getTransaction", signature, {**options, "maxSupportedTransactionVersion": 1}
    )
    too_early = await node.call("getTransaction", signature, {**options, "commitment": "processed"})

    assert refused["code"] == -32015
    assert shown["version"] == 1
    assert shown["meta"]["err"] is None
    assert shown["meta"]["preBalances"][0] - shown["meta"]["postBalances"][0] == 5000
    assert too_early["code"] == -32602


@pytest.mark.parametrize("method", ["getSlot", "getBlockHeight", "getLatestBlockhash"])
async def test_a_node_that_has_not_reached_the_asked_slot_says_so(
    chain: Localnet, node: Node, method: str
) -> None:
    options = {"commitment": "processed", "minContextSlot": chain.tip.slot + 1}

    answer = await node.call(method, options)

    assert (answer["code"], answer["data"]) == (-32016, {"contextSlot": chain.tip.slot})


async def test_too_many_requests_come_as_http_or_inside_json(chain: Localnet, node: Node) -> None:
    chain.faults.http_429_every = 2
    codes = [(await node.reply("getHealth")).status_code for _ in range(4)]
    chain.faults.http_429_every, chain.faults.rpc_429_every = 0, 2
    answers = [(await node.call("getHealth")) for _ in range(4)]

    assert codes == [200, 429, 200, 429]
    assert [answer == "ok" or answer["code"] for answer in answers] == [True, 429, True, 429]


async def test_simulation_replaces_the_blockhash_and_shows_accounts(
    chain: Localnet, node: Node
) -> None:
    encoded = base64.b64encode(bytes(signed(chain.genesis_hash, mint_tokens(5)))).decode()
    options = {
        "encoding": "base64",
        "replaceRecentBlockhash": True,
        "accounts": {"addresses": [str(TOKENS)], "encoding": "base64"},
    }

    simulated = (await node.call("simulateTransaction", encoded, options))["value"]

    tokens = base64.b64decode(simulated["accounts"][0]["data"][0])
    assert (simulated["err"], simulated["unitsConsumed"]) == (None, 161)
    assert int.from_bytes(tokens[64:72], "little") == 5
    assert simulated["replacementBlockhash"]["blockhash"] == str(chain.block_at("finalized").hash)
    assert supply(chain) == 0


async def test_a_blockhash_is_valid_in_the_view_that_knows_it(chain: Localnet, node: Node) -> None:
    blockhash = str(chain.tip.hash)

    async def valid(commitment: str) -> Any:
        answer = await node.call("isBlockhashValid", blockhash, {"commitment": commitment})
        return answer["value"]

    at_first = [await valid("processed"), await valid("finalized")]
    chain.advance(150)
    at_last = await valid("processed")
    chain.advance()

    assert at_first == [True, False]
    assert at_last is True
    assert await valid("processed") is False


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b'"text"', -32600),
        (b'{"id": 1}', -32600),
        (b'{"id": 1, "method": "getSlot", "params": {"commitment": "finalized"}}', -32600),
        (b'{"id": 1, "method": "getBlock"}', -32601),
        (b'{"id": 1, "method": "getBalance"}', -32602),
        (b'{"id": 1, "method": "getBalance", "params": ["short"]}', -32602),
        (b'{"id": 1, "method": "getSlot", "params": [{"commitment": "max"}]}', -32602),
        (b'{"id": 1, "method": "gtx_setFaults", "params": [{"unknown": 1}]}', -32602),
        (b'{"id": 1, "method": "gtx_dropFork", "params": [99]}', -32602),
    ],
)
async def test_a_bad_request_gets_its_error_code(chain: Localnet, body: bytes, code: int) -> None:
    async with await serve(chain) as server, httpx.AsyncClient(base_url=server.url) as http:
        answer = (await http.post("/", content=body)).json()

    assert answer["error"]["code"] == code


async def test_dropping_connections_cuts_everyone_and_new_ones_work(chain: Localnet) -> None:
    async with await serve(chain) as server:
        host, port = server.url.removeprefix("http://").split(":")
        idle_reader, idle_writer = await asyncio.open_connection(host, int(port))
        idle_writer.write(b"POST / HTTP/1.1\r\nContent-Length: 50\r\n\r\n")
        async with httpx.AsyncClient(base_url=server.url) as http:
            with pytest.raises(httpx.RemoteProtocolError):
                await Node(http).call("gtx_dropConnections")
            heard = await idle_reader.read()
            idle_writer.close()
            await idle_writer.wait_closed()
            healthy = await Node(http).call("getHealth")

    assert (heard, healthy) == (b"", "ok")


async def test_one_connection_carries_many_requests_and_batches(chain: Localnet) -> None:
    request = {"jsonrpc": "2.0", "method": "getHealth"}
    body = json.dumps([{**request, "id": 1}, {**request, "id": 2}]).encode()
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with await serve(chain) as server:
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write((head + body) * 2)
        answers = []
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            answers.append(json.loads(await reader.readuntil(b"]")))
        writer.close()
        await writer.wait_closed()

    assert [[entry["id"] for entry in answer] for answer in answers] == [[1, 2], [1, 2]]


async def test_blocks_come_by_themselves_while_the_clock_runs() -> None:
    chain = Localnet()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tick(chain, block_ms=1), timeout=0.05)

    assert chain.tip.height > 0
