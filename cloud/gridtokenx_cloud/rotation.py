"""Gives the token a new mint authority; safe to run again after a stop at any line.

What the former authority signed is final or gone before it hands over, and both sides agree
before and after. Once the chain has the next authority, whatever the former one signs is refused,
so its markers protect nothing any more and their rent comes back.
"""

import asyncio
import logging
from dataclasses import dataclass, replace

from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.keystore import prove
from gridtokenx_cloud.adapters.solana_rpc.handover import (
    HandoverSigner,
    handover_account,
    handover_instructions,
)
from gridtokenx_cloud.adapters.solana_rpc.history import SolanaHistory
from gridtokenx_cloud.adapters.solana_rpc.rpc import FailoverRpc
from gridtokenx_cloud.adapters.solana_rpc.sending import Sender
from gridtokenx_cloud.adapters.solana_rpc.setup import read_token
from gridtokenx_cloud.adapters.solana_rpc.tables import LookupTables
from gridtokenx_cloud.adapters.solana_rpc.transactions import Token
from gridtokenx_cloud.adapters.solana_rpc.upkeep import SolanaUpkeep
from gridtokenx_cloud.adapters.store.authority import SqlAuthority
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.key_journal import SqlKeyJournal
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.mint_upkeep import SqlMintUpkeep
from gridtokenx_cloud.audit import beside_unknown_mints, run_audit
from gridtokenx_cloud.errors import ChainMismatchError, ConfigError, DisputedBatchError
from gridtokenx_cloud.janitor import Janitor, JanitorRules
from gridtokenx_cloud.key_wiring import load_keys, policy_signers
from gridtokenx_cloud.mint_wiring import (
    connected,
    connected_minter,
    conversion_of,
    format_of,
    marker_facts,
    markers_of,
    price_bounds,
    public_token,
    sender_of,
    token_of,
)
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.keys import KeySigner
from gridtokenx_cloud.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Handover:
    """What a rotation would do, or has still to do.

    Attributes:
        handed_over: The chain has the next authority already.
        unfinished: Batches that have to end first.
    """

    present: str
    following: str
    handed_over: bool
    unfinished: tuple[int, ...]


class Rotation:
    """One handover, of the configured authority to the next one.

    Args:
        settings: With the present authority.
        database: The store; no minter may run on it.
        clock: Wall clock.
        following: The next authority.
        actor: Who does it, for the audit log.
        stolen: The store is the newest there is; mints it does not know are a thief's, and the
            handover does not wait until they are looked at.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Clock,
        following: KeySigner,
        actor: str,
        *,
        stolen: bool = False,
    ) -> None:
        self._stolen = stolen
        self._settings = settings
        self._database = database
        self._clock = clock
        self._keys = load_keys(settings)
        self._following = following
        self._store = SqlAuthority(database, clock, actor)

    async def plan(self) -> Handover:
        """Check everything that can be checked, and change nothing.

        Raises:
            ChainMismatchError: Somebody else is the token's authority.
            ConfigError: The next key can't be taken, or a setting is missing.
            SigningKeyError: A key can't sign.
            SignerUnavailableError: The service that holds a key did not answer.
        """
        present, following = self._keys.authority.address, self._following.address
        if following in (present, self._keys.payer.address):
            raise ConfigError((f"{following} serves already; make a new key for the authority",))
        for key in (self._keys.authority, self._keys.payer, self._following):
            await prove(key)
        async with connected(self._settings) as rpc:
            holder = str((await public_token(self._settings, rpc)).authority)
            if holder not in (present, following):
                raise ChainMismatchError(
                    f"the mint authority on chain is {holder}, neither {present} as configured nor"
                    f" {following}; check BLOCKCHAIN_MINT_AUTHORITY_KEY and --new"
                )
            handed_over = holder == following
            if not handed_over:
                await self._check_unused(rpc)
        return Handover(present, following, handed_over, tuple(self._store.unfinished()))

    async def _check_unused(self, rpc: FailoverRpc) -> None:
        """Refuse a key with a past: its former handover would stand where the next must."""
        past = await rpc.call(
            "getSignaturesForAddress",
            self._following.address,
            {"commitment": "finalized", "limit": 1},
        )
        if past:
            raise ConfigError(
                (f"{self._following.address} was used on this chain before; make a new key",)
            )

    async def apply(self, wait_s: float) -> None:
        """Settle, hand over, tie the store to the next authority, take rents back.

        Args:
            wait_s: Patience with the batches that have to end first.

        Raises:
            DisputedBatchError: A batch does not end, or store and chain differ; nothing is handed
                over.
        """
        plan = await self.plan()
        if not plan.handed_over:
            await self._settle(wait_s)
        with self._database.only_minter():
            if left := self._store.unfinished():
                raise DisputedBatchError(
                    f"batches {left} are not over; decide over them with `gtx-cloud batch resolve`,"
                    " or run `gtx-cloud rebuild` on a restored store"
                )
            async with connected(self._settings) as rpc:
                await self._agree(rpc)
                if not plan.handed_over:
                    await self._hand_over(rpc)
                self._bind(await public_token(self._settings, rpc))
                await self._agree(rpc)
                await self._take_rents_back(rpc)

    async def _settle(self, wait_s: float) -> None:
        """Bring every sealed batch to its end; seal no other."""
        async with connected_minter(
            self._settings,
            self._database,
            self._clock,
            despite_unknown_mints=self._stolen,
        ) as minter:
            for batch_id in self._store.unfinished():
                try:
                    async with asyncio.timeout(wait_s):
                        await minter.service.mint_energy_tokens_batch(batch_id)
                except TimeoutError:
                    reasons = "; ".join(minter.service.halted) or "see `gtx-cloud batch show`"
                    raise DisputedBatchError(
                        f"batch {batch_id} is not final after {wait_s:g} s ({reasons}); nothing"
                        " was handed over"
                    ) from None

    async def _agree(self, rpc: FailoverRpc) -> None:
        history = SolanaHistory(rpc, await public_token(self._settings, rpc))
        report = await run_audit(
            SqlAuditStore(self._database), history, conversion_of(self._settings)
        )
        differences = beside_unknown_mints(report) if self._stolen else report.differences
        if differences:
            first = differences[0]
            raise DisputedBatchError(
                f"store and chain differ: {first.subject} {first.code} {first.detail}; run"
                " `gtx-cloud audit`, and `gtx-cloud rebuild` on a restored store"
            )

    async def _hand_over(self, rpc: FailoverRpc) -> None:
        token = await self._token(rpc)
        following = Pubkey.from_string(self._following.address)
        rent = int(await rpc.call("getMinimumBalanceForRentExemption", 0))
        instructions = handover_instructions(token, following, rent)
        keys = {
            key.address: key for key in (self._keys.payer, self._keys.authority, self._following)
        }
        signers = [HandoverSigner(key, instructions) for key in keys.values()]
        sender = Sender(rpc, token, signers, self._clock, price_bounds(self._settings))

        async def done() -> bool:
            return (await read_token(rpc, token.mint)).authority == following

        self._store.begin(self._keys.authority.address, self._following.address)
        while not await sender.until(instructions, done):
            _log.warning("handover_expired", extra={"next": self._following.address})
        account = str(handover_account(token.mint, following))
        _log.info("authority_handed_over", extra={"next": str(following), "account": account})

    async def _token(self, rpc: FailoverRpc) -> Token:
        found = await public_token(self._settings, rpc)
        return replace(found, payer=Pubkey.from_string(self._keys.payer.address))

    def _bind(self, token: Token) -> None:
        facts = marker_facts(markers_of(self._settings, token))
        self._store.hand_over(self._keys.authority.address, str(token.authority), facts)

    async def _take_rents_back(self, rpc: FailoverRpc) -> None:
        """Empty every marker of the former authority; it can still sign for those."""
        token = token_of(self._settings, self._keys)
        journal = SqlKeyJournal(self._database, self._clock)
        signers = policy_signers(self._settings, self._keys, self._clock, journal)
        sender = sender_of(self._settings, rpc, token, signers, self._clock)
        form = await format_of(self._settings, rpc, token.payer)
        upkeep = SqlMintUpkeep(self._database)
        tables = LookupTables(sender, upkeep, self._clock)
        chain = SolanaUpkeep(sender, markers_of(self._settings, token), form, tables)
        await Janitor(upkeep, chain, self._clock, JanitorRules(0, 1)).tidy()
