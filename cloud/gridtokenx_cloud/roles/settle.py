"""The role that turns credits into tokens, and audits the store against the chain."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from gridtokenx_cloud.adapters.solana_rpc.chain import SolanaMintChain
from gridtokenx_cloud.adapters.solana_rpc.history import SolanaHistory
from gridtokenx_cloud.adapters.solana_rpc.rpc import FailoverRpc, connect
from gridtokenx_cloud.adapters.solana_rpc.setup import check_chain
from gridtokenx_cloud.adapters.solana_rpc.transactions import Token
from gridtokenx_cloud.audit import AuditStore, run_audit
from gridtokenx_cloud.errors import TransientError
from gridtokenx_cloud.roles.relay import Relay
from gridtokenx_cloud.settle import MeterPollingService
from gridtokenx_cloud.supervisor import StopSignal
from gridtokenx_cloud.tokenization import Conversion

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Minting:
    """What the role works with.

    Attributes:
        chain: Returns minter of the cluster behind an RPC connection.
        service: Returns the minting service over that chain and history.
    """

    rpc_urls: tuple[str, ...]
    rpc_timeout_s: float
    genesis_hash: str | None
    token: Token
    conversion: Conversion
    audit_store: AuditStore
    audit_interval_s: float
    chain: Callable[[FailoverRpc], SolanaMintChain]
    service: Callable[[SolanaMintChain, SolanaHistory], MeterPollingService]


class SettleRole:
    """Keeps one minting service running, in an event loop of its own."""

    name = "settle"

    def __init__(self, minting: Minting, relay: Relay) -> None:
        self._minting = minting
        self._relay = relay
        self._service: MeterPollingService | None = None

    def run(self, stop: StopSignal) -> None:
        """See `Role.run`."""
        asyncio.run(self._work(stop))

    def trouble(self) -> str | None:
        """See `Role.trouble`."""
        if self._service is None:
            return "the chain has not been checked yet; see the log"
        return "; ".join(self._service.halted) or None

    async def _work(self, stop: StopSignal) -> None:
        stopping, credited = asyncio.Event(), asyncio.Event()
        stop.tell(_from_any_thread(stopping.set))
        rpc, endpoints = connect(self._minting.rpc_urls, self._minting.rpc_timeout_s)
        try:
            await check_chain(rpc, self._minting.token, self._minting.genesis_hash)
            history = SolanaHistory(rpc, self._minting.token)
            service = self._minting.service(self._minting.chain(rpc), history)
            self._service = service
            self._relay.wake_minting = _from_any_thread(credited.set)
            auditing = asyncio.create_task(self._audit_now_and_then(history))
            try:
                await service.run(stopping, credited)
            finally:
                auditing.cancel()
        finally:
            self._service = None
            self._relay.wake_minting = None
            for endpoint in endpoints:
                await endpoint.close()

    async def _audit_now_and_then(self, history: SolanaHistory) -> None:
        while True:
            await asyncio.sleep(self._minting.audit_interval_s)
            try:
                report = await run_audit(
                    self._minting.audit_store, history, self._minting.conversion
                )
            except TransientError as exc:
                _log.warning("audit_put_off", extra={"error": str(exc)})
                continue
            for found in report.differences:
                fields = {"subject": found.subject, "code": found.code, "detail": found.detail}
                _log.error("audit_mismatch", extra=fields)
            if report.ok:
                _log.info("audit_ok", extra={"batches": report.sums.batches})


def _from_any_thread(call: Callable[[], None]) -> Callable[[], None]:
    """Return *call* as other threads may make it; nothing happens once the loop has ended."""
    loop = asyncio.get_running_loop()

    def make_call() -> None:
        try:
            loop.call_soon_threadsafe(call)
        except RuntimeError:
            return

    return make_call
