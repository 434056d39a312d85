"""The role that turns credits into tokens, and audits the store against the chain."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from gridtokenx_cloud.adapters.store.mint_trigger import SqlMintTrigger
from gridtokenx_cloud.audit import run_audit, unknown_mint_reason
from gridtokenx_cloud.driving import WHOLE_STORE
from gridtokenx_cloud.errors import CloudError, TransientError
from gridtokenx_cloud.janitor import Janitor
from gridtokenx_cloud.metrics import Figure
from gridtokenx_cloud.mint_wiring import ConnectedMinter
from gridtokenx_cloud.ports.audit import AuditReport
from gridtokenx_cloud.roles.relay import Relay
from gridtokenx_cloud.settle import MeterPollingService
from gridtokenx_cloud.supervisor import StopSignal

_LOOK_EVERY_S = 2.0
_TIDY_EVERY_MINUTES = 60
_log = logging.getLogger(__name__)


class SettleRole:
    """Keeps one minting service running, in an event loop of its own.

    Args:
        connect: Gives the service once chain, keys and store agree.
        relay: What tells it of new credits.
        audit_interval_s: Pause between two audits.
        trigger: Where operators ask for a pass.
    """

    name = "settle"

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[ConnectedMinter]],
        relay: Relay,
        audit_interval_s: float,
        trigger: SqlMintTrigger,
    ) -> None:
        self._trigger = trigger
        self._connect = connect
        self._relay = relay
        self._audit_interval_s = audit_interval_s
        self._minter: ConnectedMinter | None = None
        self._differences: int | None = None

    def run(self, stop: StopSignal) -> None:
        """See `Role.run`."""
        asyncio.run(self._work(stop))

    def trouble(self) -> str | None:
        """See `Role.trouble`."""
        return None if self._minter else "the chain has not been checked yet; see the log"

    def figures(self) -> Iterator[Figure]:
        """Yield what this role knows beside the store."""
        if (minter := self._minter) is not None:
            yield from minter.janitor.figures()
            yield from minter.journal.figures()
            halts = len(minter.service.halted)
            yield Figure("minting_halts", "Reasons why no new batch is sealed", halts)
        if self._differences is not None:
            meaning = "What store and chain did not agree on at the last audit"
            yield Figure("audit_differences", meaning, self._differences)

    async def _work(self, stop: StopSignal) -> None:
        stopping, credited = asyncio.Event(), asyncio.Event()
        stop.tell(_from_any_thread(stopping.set))
        async with self._connect() as minter:
            self._relay.wake_minting = _from_any_thread(credited.set)
            minter.service.on_final = lambda: self._relay.committed(credited=False)
            self._minter = minter
            try:
                await _first(
                    minter.service.run(stopping, credited),
                    self._audit_now_and_then(minter),
                    _tidy_now_and_then(minter.janitor),
                    self._look_for_passes(minter.service),
                )
            finally:
                self._minter = None
                self._relay.wake_minting = self._relay.look_for_pass = None

    async def _look_for_passes(self, service: MeterPollingService) -> None:
        """Have the passes made that operators ask for, in this process or in another one."""
        look = asyncio.Event()
        self._relay.look_for_pass = _from_any_thread(look.set)
        while True:
            look.clear()
            try:
                wanted, done = self._trigger.state()
                if wanted > done:
                    await service.pass_now()
                    self._trigger.done(wanted)
            except TransientError as exc:
                _log.warning("trigger_not_read", extra={"error": str(exc)})
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await look.wait()

    async def _audit_now_and_then(self, minter: ConnectedMinter) -> None:
        while True:
            try:
                report = await run_audit(minter.store, minter.history, minter.conversion)
            except CloudError as exc:
                _log.warning("audit_put_off", extra={"error": str(exc)})
            else:
                self._differences = len(report.differences)
                _tell(report, minter)
            await asyncio.sleep(self._audit_interval_s)


def _tell(report: AuditReport, minter: ConnectedMinter) -> None:
    for found in report.differences:
        fields = {"subject": found.subject, "code": found.code, "detail": found.detail}
        _log.error("audit_mismatch", extra=fields)
        if found.code == "UnknownMint":
            minter.service.halt(WHOLE_STORE, unknown_mint_reason(found.subject))
    if report.ok:
        _log.info("audit_ok", extra={"batches": report.sums.batches})


async def _tidy_now_and_then(janitor: Janitor) -> None:
    for minute in itertools.count():
        try:
            await janitor.watch_payer()
            if minute % _TIDY_EVERY_MINUTES == 0:
                await janitor.tidy()
        except CloudError as exc:
            _log.warning("upkeep_put_off", extra={"error": str(exc)})
        await asyncio.sleep(60)


async def _first(*work: Coroutine[Any, Any, None]) -> None:
    """Return when one has ended, with its error if it had one; the others end with it."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _from_any_thread(call: Callable[[], None]) -> Callable[[], None]:
    """Return *call* as other threads may make it; nothing happens once the loop has ended."""
    loop = asyncio.get_running_loop()

    def make_call() -> None:
        try:
            loop.call_soon_threadsafe(call)
        except RuntimeError:
            return

    return make_call
