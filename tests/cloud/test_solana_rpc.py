"""The way to a cluster, over real sockets to a localnet and to a server that lies."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.localnet import serve
from gridtokenx_cloud.adapters.solana_rpc.readback import read_transaction
from gridtokenx_cloud.adapters.solana_rpc.rpc import (
    FailoverRpc,
    HttpRpc,
    RpcBusyError,
    RpcRefusedError,
)
from gridtokenx_cloud.adapters.solana_rpc.sending import Sender
from gridtokenx_cloud.adapters.solana_rpc.setup import check_chain, read_token
from gridtokenx_cloud.adapters.solana_rpc.status import chain_error
from gridtokenx_cloud.adapters.solana_rpc.transactions import MEMO, TOKEN_2022, SolanaWallets
from gridtokenx_cloud.errors import (
    ChainMismatchError,
    RpcUnavailableError,
    ValidationError,
)
from gridtokenx_cloud.mint_state import ChainError
from tests.support.mint_world import AUTHORITY, World, new_world, wallet

DAY = "Wed, 25 Nov 2026"


@asynccontextmanager
async def answering(reply: Callable[[bytes], bytes]) -> AsyncIterator[HttpRpc]:
    """Give a client of a server that answers every request with the same bytes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            writer.write(reply(await reader.readexactly(length)))
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = HttpRpc(f"http://127.0.0.1:{port}/?api-key=secret", timeout_s=30)
    try:
        yield client
    finally:
        await client.close()
        server.close()


def http(status: int, body: object, headers: str = "") -> Callable[[bytes], bytes]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\n{headers}Content-Length: {len(text)}\r\nConnection: close\r\n"
    return lambda _request: f"{head}\r\n".encode() + text


def error(code: int, **extra: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "no", **extra}}


@pytest.mark.parametrize("code", [429, -32429, -32004, -32005, -32014, -32016])
async def test_a_node_that_is_busy_or_behind_is_asked_again(code: int) -> None:
    async with answering(http(200, error(code))) as rpc:
        with pytest.raises(RpcBusyError, match=str(code)):
            await rpc.call("getSlot")


@pytest.mark.parametrize("code", [-32602, -32601, -32002, -32000, 403, -32019])
async def test_a_refusal_keeps_its_number_whatever_it_is(code: int) -> None:
    async with answering(http(200, error(code))) as rpc:
        with pytest.raises(RpcRefusedError) as caught:
            await rpc.call("getSlot")

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b"<html>busy</html>"),
        (200, b"<html>login</html>"),
        (200, {"jsonrpc": "2.0", "id": 1}),
        (200, error(-32603)),
        (200, b""),
    ],
)
async def test_an_answer_that_is_none_says_nothing_about_the_chain(
    status: int, body: object
) -> None:
    async with answering(http(status, body)) as rpc:
        with pytest.raises(RpcUnavailableError) as caught:
            await rpc.call("getSlot")

    assert "secret" not in str(caught.value)


async def test_the_pause_a_node_asks_for_is_kept() -> None:
    async with answering(http(429, b"slow down", "Retry-After: 7\r\n")) as rpc:
        with pytest.raises(RpcBusyError) as caught:
            await rpc.call("getSlot")

    assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("headers", "rest_s"),
    [
        (f"Date: {DAY} 11:59:48 GMT\r\nRetry-After: {DAY} 12:00:00 GMT\r\n", 12.0),
        (f"Date: {DAY} 12:00:48 GMT\r\nRetry-After: {DAY} 12:00:00 GMT\r\n", 0.0),
        (f"Date: {DAY} 10:00:00 GMT\r\nRetry-After: {DAY} 12:00:00 GMT\r\n", 30.0),
        (f"Date: soon\r\nRetry-After: {DAY} 12:00:00 GMT\r\n", 0.0),
        (f"Retry-After: {DAY} 12:00:00 GMT\r\n", 0.0),
        ("Retry-After: later\r\n", 0.0),
        ("Retry-After: 3600\r\n", 30.0),
        ("", 0.0),
    ],
)
async def test_a_pause_until_a_moment_is_measured_by_the_clock_of_the_node(
    headers: str, rest_s: float
) -> None:
    async with answering(http(429, b"slow down", headers)) as rpc:
        with pytest.raises(RpcBusyError) as caught:
            await rpc.call("getSlot")

    assert caught.value.retry_after_s == rest_s


class Scripted:
    """An endpoint that fails so many times before it answers."""

    def __init__(self, name: str, failures: int) -> None:
        self.name = name
        self.failures = failures
        self.calls = 0

    async def call(self, method: str, *params: Any) -> Any:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise RpcBusyError("busy", 3.0)
        return self.name


class Passing:
    """Time that passes when somebody sleeps, or when told."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds

    def read(self) -> float:
        return self.now_s


async def test_another_endpoint_answers_for_one_that_is_down() -> None:
    down, up = Scripted("down", 99), Scripted("up", 0)
    rpc = FailoverRpc([down, up])

    answers = [await rpc.call("getSlot") for _ in range(3)]

    assert answers == ["up"] * 3
    assert down.calls == 1


async def test_a_lone_endpoint_is_given_the_time_it_asks_for() -> None:
    time = Passing()
    slow = Scripted("slow", 2)
    rpc = FailoverRpc([slow], time.sleep, time.read)

    assert await rpc.call("getSlot") == "slow"
    assert len(time.pauses) == 2
    assert min(time.pauses) >= 3.0
    assert slow.calls == 3


async def test_an_endpoint_that_asks_for_peace_is_left_alone_by_everybody() -> None:
    time = Passing()
    resting = Scripted("resting", 1)
    rpc = FailoverRpc([resting], time.sleep, time.read)
    (endpoint,) = rpc.endpoints
    with pytest.raises(RpcBusyError):
        await endpoint.call("getSlot")

    with pytest.raises(RpcBusyError, match=r"asks for 3\.0 s of peace"):
        await endpoint.call("sendTransaction")
    time.now_s += 3.0

    assert await endpoint.call("getSlot") == "resting"
    assert resting.calls == 2


async def test_a_send_waits_for_a_node_that_asks_for_peace_and_gets_there() -> None:
    world, time, node = await new_world(), Passing(), Scripted("node", 1)
    rpc = FailoverRpc([node], time.sleep, time.read)

    await Sender(rpc, world.token, [], world.clock, sleep=time.sleep).send(b"bytes")

    assert time.pauses == [2.0, 1.0]
    assert node.calls == 2


async def test_a_send_to_a_node_that_never_has_time_ends_without_another_pause() -> None:
    world, time, node = await new_world(), Passing(), Scripted("node", 99)
    rpc = FailoverRpc([node], time.sleep, time.read)

    await Sender(rpc, world.token, [], world.clock, sleep=time.sleep).send(b"bytes")

    assert time.pauses == [2.0, 1.0]
    assert node.calls == 2


async def test_the_preferred_endpoint_is_asked_first_again_after_some_minutes() -> None:
    time = Passing()
    first, second = Scripted("first", 1), Scripted("second", 0)
    rpc = FailoverRpc([first, second], time.sleep, time.read)

    soon = [await rpc.call("getSlot") for _ in range(2)]
    time.now_s += 300
    later = await rpc.call("getSlot")

    assert soon == ["second", "second"]
    assert later == "first"


async def test_an_endpoint_that_takes_seconds_gives_way_to_a_quick_one() -> None:
    time = Passing()

    class Slow(Scripted):
        async def call(self, method: str, *params: Any) -> Any:
            time.now_s += 4.0
            return await super().call(method, *params)

    slow, quick = Slow("slow", 0), Scripted("quick", 0)
    rpc = FailoverRpc([slow, quick], time.sleep, time.read)

    answers = [await rpc.call("getSlot") for _ in range(3)]

    assert answers == ["slow", "quick", "quick"]


async def test_a_refusal_is_an_answer_and_speaks_for_the_node() -> None:
    class Refusing:
        async def call(self, method: str, *params: Any) -> Any:
            raise RpcRefusedError(method, -32602, "no")

    rpc = FailoverRpc([Refusing(), Scripted("other", 0)])

    for _ in range(3):
        with pytest.raises(RpcRefusedError):
            await rpc.call("getSlot")


async def test_without_any_endpoint_the_error_names_the_setting() -> None:
    async def sleep(_seconds: float) -> None:
        return

    with pytest.raises(RpcUnavailableError, match="GTX_CLOUD_SOLANA_RPC_URLS"):
        await FailoverRpc([], sleep).call("getSlot")


async def test_the_start_check_passes_on_the_right_chain_over_a_real_socket() -> None:
    world = await new_world()
    server = await serve(world.chain)
    rpc = HttpRpc(server.url, timeout_s=30)
    try:
        genesis = await check_chain(rpc, world.token, None)
        again = await check_chain(rpc, world.token, genesis)
        token = await read_token(rpc, world.token.mint)
    finally:
        await rpc.close()
        await server.close()

    assert again == genesis == str(world.chain.genesis_hash)
    assert (token.decimals, token.authority) == (9, AUTHORITY.pubkey())


async def _mismatch(world: World, genesis: str | None = None, **changed: Any) -> str:
    with pytest.raises(ChainMismatchError) as caught:
        await check_chain(world.rpc, replace(world.token, **changed), genesis)
    return str(caught.value)


async def test_a_chain_that_is_not_the_configured_one_stops_the_start() -> None:
    world = await new_world()
    stranger = Keypair.from_seed(b"z" * 32).pubkey()

    assert str(Pubkey.default()) in await _mismatch(world, genesis=str(Pubkey.default()))
    assert "does not exist" in await _mismatch(world, mint=stranger)
    assert "configured 6, on chain 9" in await _mismatch(world, decimals=6)
    authority = await _mismatch(world, authority=stranger)
    assert str(stranger) in authority
    assert str(AUTHORITY.pubkey()) in authority
    assert str(TOKEN_2022) in await _mismatch(world, program=TOKEN_2022)


@pytest.mark.parametrize(
    ("err", "expected"),
    [
        (None, None),
        ("AccountNotFound", ChainError(None, "AccountNotFound")),
        ({"InstructionError": [3, {"Custom": 17}]}, ChainError(3, 17)),
        ({"InstructionError": [3, "InvalidAccountData"]}, ChainError(3, "InvalidAccountData")),
        ({"InstructionError": [1, {"BorshIoError": "x"}]}, ChainError(1, "BorshIoError")),
        (
            {"InsufficientFundsForRent": {"account_index": 0}},
            ChainError(None, "InsufficientFundsForRent"),
        ),
    ],
)
def test_an_error_is_read_as_a_node_writes_it(err: Any, expected: ChainError | None) -> None:
    assert chain_error(err) == expected


async def test_only_a_person_can_have_a_token_account() -> None:
    world = await new_world()
    wallets = SolanaWallets(world.token)
    owner = wallet(1).pubkey()

    account = wallets.token_account(str(owner))

    assert account == str(world.token.account_of(owner))
    for bad in (account, "no address", ""):
        with pytest.raises(ValidationError) as caught:
            wallets.token_account(bad)
        assert caught.value.code == "InvalidWalletAddress"


async def test_our_address_and_memo_in_a_strangers_transaction_prove_nothing() -> None:
    world = await new_world()
    stranger = Keypair.from_seed(b"z" * 32)
    named = AccountMeta(AUTHORITY.pubkey(), is_signer=False, is_writable=False)
    memo = Instruction(MEMO, b"gm1:1:1:1:1:" + b"A" * 43, [])
    call = Instruction(stranger.pubkey(), b"", [named])
    message = Message.new_with_blockhash([memo, call], stranger.pubkey(), Hash.default())

    read = read_transaction(bytes(VersionedTransaction(message, [stranger])), world.token)

    assert read.memo is not None
    assert not read.authority_signed
