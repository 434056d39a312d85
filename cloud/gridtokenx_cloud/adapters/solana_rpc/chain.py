"""`MintChain` over JSON-RPC: accounts, signing, sending, watching."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from solders.hash import Hash
from solders.message import to_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM

from gridtokenx_cloud.adapters.solana_rpc.rpc import FailoverRpc, JsonRpc, RpcRefusedError
from gridtokenx_cloud.adapters.solana_rpc.transactions import (
    AnyMessage,
    MintContent,
    Token,
    compile_message,
    create_account_instruction,
    mint_instructions,
    signed,
    unsigned,
    wallet_key,
)
from gridtokenx_cloud.batching import (
    Markers,
    TransactionFormat,
    compute_unit_limit,
    unit_price_micro_lamports,
)
from gridtokenx_cloud.errors import RpcUnavailableError
from gridtokenx_cloud.mint_state import (
    ChainError,
    InFlight,
    Marker,
    Observation,
    StatusFinal,
    StatusSeen,
    StatusUnknown,
    needs_marker,
)
from gridtokenx_cloud.ports.mint import AccountReport, Attempt, MintBatch

_MAX_COMPUTE_UNITS = 1_400_000
_ACCOUNTS_PER_CALL = 100
_CREATIONS_PER_TRANSACTION = 10
_CREATE_POLL_S = 1.0
_SEND_TRIES = 2
_TOKEN_ACCOUNT_BYTES = 165
_STATE_OFFSET, _INITIALIZED = 108, 1
_CONFIRMED = {"commitment": "confirmed"}
_FINALIZED = {"commitment": "finalized"}


class Signer(Protocol):
    """Holds one key; `adapters.keystore.PolicySigner` is one."""

    @property
    def address(self) -> str:
        """Base58 public key."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature; raise `SigningKeyError` when the policy forbids it."""
        ...


class SolanaMintChain:
    """Mints one token on one cluster."""

    def __init__(
        self,
        rpc: FailoverRpc,
        token: Token,
        *,
        authority: Signer,
        payer: Signer,
        markers: Markers,
        form: TransactionFormat = TransactionFormat.LEGACY,
        price_floor_micro_lamports: int = 1_000,
        price_cap_micro_lamports: int = 1_000_000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rpc = rpc
        self._token = token
        self._signers = {authority.address: authority, payer.address: payer}
        self._markers = markers
        self._form = form
        self._price_bounds = (price_floor_micro_lamports, price_cap_micro_lamports)
        self._sleep = sleep

    async def inspect(self, batch: MintBatch) -> AccountReport:
        """See `MintChain.inspect`."""
        wallets = [item.wallet for item in batch.items]
        tokens = [item.token_account for item in batch.items]
        accounts = await self._accounts([batch.marker, *tokens, *wallets])
        refused: dict[str, str] = {}
        missing: list[str] = []
        for position, wallet in enumerate(wallets):
            account = accounts[1 + position]
            owner = accounts[1 + len(wallets) + position]
            reason = _wallet_fault(owner) or _account_fault(account, wallet, self._token)
            if reason:
                refused[wallet] = reason
            elif not _exists(account):
                missing.append(wallet)
        return AccountReport(refused, tuple(missing), accounts[0] is not None)

    async def create_token_accounts(self, wallets: Sequence[str]) -> None:
        """See `MintChain.create_token_accounts`."""
        for start in range(0, len(wallets), _CREATIONS_PER_TRANSACTION):
            part = wallets[start : start + _CREATIONS_PER_TRANSACTION]
            keys = [wallet_key(wallet) for wallet in part]
            instructions = [create_account_instruction(self._token, key) for key in keys]
            blockhash, last_height = await self._blockhash()
            message = compile_message(instructions, self._token.payer, blockhash, self._form)
            _, raw = self._sign(message)
            await self._until_created(
                raw, [str(self._token.account_of(k)) for k in keys], last_height
            )

    async def _until_created(self, raw: bytes, accounts: list[str], last_height: int) -> None:
        """Send until all exist; a try that expired ends too, the caller looks and tries again."""
        while True:
            await self.send(raw)
            await self._sleep(_CREATE_POLL_S)
            if all(_exists(account) for account in await self._accounts(accounts)):
                return
            if await self._rpc.call("getBlockHeight", _FINALIZED) > last_height:
                return

    async def prepare(self, batch: MintBatch) -> Attempt | ChainError:
        """See `MintChain.prepare`."""
        price = await self._unit_price(batch.attempts)
        rent = await self._rpc.call("getMinimumBalanceForRentExemption", 0)
        blockhash, last_height = await self._blockhash()
        draft = self._message(batch, rent, price, _MAX_COMPUTE_UNITS, blockhash)
        used = await self._simulate(draft)
        if isinstance(used, ChainError):
            return used
        limit = compute_unit_limit(used, batch.exhausted_attempts)
        signature, raw = self._sign(self._message(batch, rent, price, limit, blockhash))
        return Attempt(batch.attempts + 1, signature, raw, last_height, sent=False)

    def _message(
        self, batch: MintBatch, rent: int, price: int, limit: int, blockhash: Hash
    ) -> AnyMessage:
        content = MintContent(
            memo=batch.memo,
            marker=Pubkey.from_string(batch.marker),
            marker_seed=self._markers.seed(batch.batch_id),
            marker_lamports=rent,
            payments=tuple(
                (Pubkey.from_string(item.token_account), item.amount_base_units)
                for item in batch.items
            ),
            compute_units=limit,
            unit_price_micro_lamports=price,
        )
        instructions = mint_instructions(self._token, content)
        return compile_message(instructions, self._token.payer, blockhash, self._form)

    def _sign(self, message: AnyMessage) -> tuple[str, bytes]:
        body = to_bytes_versioned(message)
        needed = list(message.account_keys)[: message.header.num_required_signatures]
        signatures = [self._signers[str(key)].sign(body) for key in needed]
        return signed(message, signatures, self._form)

    async def _simulate(self, message: AnyMessage) -> int | ChainError:
        text = base64.b64encode(unsigned(message)).decode()
        options = {**_CONFIRMED, "encoding": "base64", "sigVerify": False}
        # A node that has not seen our blockhash yet must not make this a failure.
        reply = await self._rpc.call(
            "simulateTransaction", text, options | {"replaceRecentBlockhash": True}
        )
        error = chain_error(reply["value"].get("err"))
        return error or int(reply["value"].get("unitsConsumed") or _MAX_COMPUTE_UNITS)

    async def _blockhash(self) -> tuple[Hash, int]:
        """Return hash and last valid height of one reply; finalized, so no fork can orphan it."""
        value = (await self._rpc.call("getLatestBlockhash", _FINALIZED))["value"]
        return Hash.from_string(value["blockhash"]), value["lastValidBlockHeight"]

    async def _unit_price(self, earlier_attempts: int) -> int:
        written = [str(self._token.mint), str(self._token.payer)]
        recent = await self._rpc.call("getRecentPrioritizationFees", written)
        fees = [entry["prioritizationFee"] for entry in recent]
        return unit_price_micro_lamports(fees, *self._price_bounds, earlier_attempts)

    async def send(self, raw: bytes) -> None:
        """See `MintChain.send`."""
        await asyncio.gather(*(_send(endpoint, raw) for endpoint in self._rpc.endpoints))

    async def observe(self, state: InFlight, marker: str) -> Observation:
        """See `MintChain.observe`."""
        # One reply for both: a height newer than the slot would make an old "unknown" look new.
        epoch = await self._rpc.call("getEpochInfo", _FINALIZED)
        slot, height = epoch["absoluteSlot"], epoch["blockHeight"]
        reply = await self._rpc.call(
            "getSignatureStatuses", [state.signature], {"searchTransactionHistory": True}
        )
        status = _status(reply)
        seen = None
        if needs_marker(state, height, status):
            account = await self._rpc.call(
                "getAccountInfo", marker, {**_FINALIZED, "encoding": "base64"}
            )
            seen = Marker(account["value"] is not None, account["context"]["slot"])
        return Observation(slot, height, status, seen)

    async def _accounts(self, addresses: Sequence[str]) -> list[dict[str, Any] | None]:
        found: list[dict[str, Any] | None] = []
        for start in range(0, len(addresses), _ACCOUNTS_PER_CALL):
            part = list(addresses[start : start + _ACCOUNTS_PER_CALL])
            options = {**_CONFIRMED, "encoding": "base64"}
            reply = await self._rpc.call("getMultipleAccounts", part, options)
            if len(reply["value"]) != len(part):
                raise RpcUnavailableError("getMultipleAccounts answered for other accounts")
            found += reply["value"]
        return found


async def _send(endpoint: JsonRpc, raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    options = {"encoding": "base64", "skipPreflight": True, "maxRetries": 0}
    # Whatever a node says about sending, only the finalized chain tells what happened; and the
    # same bytes can be sent any number of times.
    for _ in range(_SEND_TRIES):
        try:
            await endpoint.call("sendTransaction", text, options)
        except RpcUnavailableError:
            continue
        except RpcRefusedError:
            return
        return


def chain_error(err: Any) -> ChainError | None:
    """Return a transaction's `err` as a node writes it."""
    if err is None:
        return None
    if isinstance(err, str):
        return ChainError(None, err)
    name, detail = next(iter(err.items()))
    if name != "InstructionError":
        return ChainError(None, name)
    index, cause = detail
    if isinstance(cause, dict):
        kind, value = next(iter(cause.items()))
        return ChainError(index, value if kind == "Custom" else kind)
    return ChainError(index, cause)


def _status(reply: dict[str, Any]) -> StatusUnknown | StatusSeen | StatusFinal:
    entry = reply["value"][0]
    if entry is None:
        return StatusUnknown(reply["context"]["slot"])
    if entry.get("confirmationStatus") != "finalized":
        return StatusSeen()
    return StatusFinal(entry["slot"], chain_error(entry.get("err")))


def _wallet_fault(account: dict[str, Any] | None) -> str | None:
    if account is None or account["owner"] == str(SYSTEM):
        return None
    return f"the wallet is an account of program {account['owner']}, not of a person"


def _exists(account: dict[str, Any] | None) -> bool:
    # Owned by System: somebody sent SOL to the address before the account was made.
    return account is not None and account["owner"] != str(SYSTEM)


def _account_fault(account: dict[str, Any] | None, wallet: str, token: Token) -> str | None:
    """Return why a token account can't take this token; None also when it does not exist."""
    if account is None or not _exists(account):
        return None
    data = base64.b64decode(account["data"][0])
    if account["owner"] != str(token.program) or len(data) < _TOKEN_ACCOUNT_BYTES:
        return "the token account belongs to another program"
    if data[:32] != bytes(token.mint):
        return "the token account holds another token"
    if str(Pubkey.from_bytes(data[32:64])) != wallet:
        return "the token account was given to another owner"
    if data[_STATE_OFFSET] != _INITIALIZED:
        return "the token account is frozen"
    return None
