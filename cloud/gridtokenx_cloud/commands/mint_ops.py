"""Operators' commands: look at a batch, decide a dispute, restore what the chain has."""

import asyncio
import json
import re
from collections.abc import Collection
from dataclasses import asdict, replace

import click

from gridtokenx_cloud.adapters.solana_rpc.history import SolanaHistory
from gridtokenx_cloud.adapters.solana_rpc.rpc import JsonRpc
from gridtokenx_cloud.adapters.solana_rpc.status import StatusPoll
from gridtokenx_cloud.adapters.solana_rpc.transactions import SolanaWallets
from gridtokenx_cloud.adapters.store.foreign_mints import SqlForeignMints
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.mint_rebuild import Shown, SqlBatchDesk
from gridtokenx_cloud.batching import parse_memo
from gridtokenx_cloud.commands.context import CommandContext
from gridtokenx_cloud.errors import DisputedBatchError, NotFoundError, ValidationError
from gridtokenx_cloud.mint_state import StatusFinal, StatusUnknown
from gridtokenx_cloud.mint_wiring import connected, conversion_of, markers_of, public_token
from gridtokenx_cloud.ports.audit import ChainMint
from gridtokenx_cloud.rebuild import RebuildPlan, plan

_SIGNATURE = re.compile(r"[1-9A-HJ-NP-Za-km-z]{64,88}\Z")
_FINALIZED = {"commitment": "finalized"}
_NEVER, _FAILED, _NOT_KNOWN = "never landed", "failed: ", "not known yet"
_OURS, _NAMELESS = "made by an attempt", "made by a transaction that no history names"
_MARKER_OPEN = (_NOT_KNOWN, _OURS, _NAMELESS)
"""By these a mint of the batch can't be excluded; one by another transaction is for `rebuild`."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _desk(context: CommandContext) -> SqlBatchDesk:
    return SqlBatchDesk(context.database(), context.clock, actor=context.actor)


@click.group("batch")
def batch() -> None:
    """Mint batches, and what to do with a disputed one."""


@batch.command("show")
@click.argument("batch_id", type=click.INT)
@json_option
@click.pass_obj
def batch_show(context: CommandContext, batch_id: int, as_json: bool) -> None:
    """Show a batch with its recipients and attempts."""
    shown = _desk(context).show(batch_id)
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    lists = {name: value for name, value in shown.items() if isinstance(value, list)}
    for name, value in shown.items():
        if name not in lists:
            click.echo(f"{name}: {'-' if value is None else value}")
    for name, rows in lists.items():
        click.echo(f"\n{name}:")
        context.emit(rows, as_json=False)


@batch.command("resolve")
@click.argument("batch_id", type=click.INT)
@click.option("--retry", "way", flag_value="retry", help="Let the chain decide again.")
@click.option("--release", "way", flag_value="release", help="Give its credits to new batches.")
@click.option("--yes", is_flag=True, help="Do it; without, only the evidence is shown.")
@click.pass_obj
def batch_resolve(context: CommandContext, batch_id: int, way: str | None, yes: bool) -> int:
    """Decide a disputed batch by what the chain says of it; exit 1 when that forbids it."""
    desk = _desk(context)
    evidence = asyncio.run(_evidence(context, desk.show(batch_id)))
    click.echo(json.dumps(evidence, indent=2))
    if way is None or not yes:
        click.echo("nothing was changed; add --retry or --release, and --yes")
        return 0
    if way == "retry":
        desk.reopen(batch_id, evidence)
        click.echo(f"batch {batch_id} is sealed again; the minter asks the chain")
        return 0
    if evidence["may_have_minted"]:
        raise DisputedBatchError(
            f"batch {batch_id} may have been minted by an attempt of ours, so its credits stay;"
            " use --retry, or `gtx-cloud rebuild`"
        )
    freed = desk.release(batch_id, evidence)
    click.echo(f"batch {batch_id} is void; {freed} credits go into new batches")
    return 0


async def _evidence(context: CommandContext, shown: Shown) -> dict[str, object]:
    """Return what the finalized chain says of a batch's attempts and marker."""
    attempts = shown["attempts"]
    assert isinstance(attempts, list)  # noqa: S101 - `show` makes it so
    async with connected(context.settings) as rpc:
        history = SolanaHistory(rpc, await public_token(context.settings, rpc))
        fates = {
            one["signature"]: await _fate(rpc, one["signature"], one["last_valid_block_height"])
            for one in attempts
        }
        marker = await _marker_fate(rpc, history, str(shown["marker"]), fates.keys())
    return {
        "batch_id": shown["batch_id"],
        "state": shown["state"],
        "dispute": shown["dispute"],
        "attempts": fates,
        "marker": marker,
        "may_have_minted": marker in _MARKER_OPEN or not all(map(_minted_nothing, fates.values())),
    }


async def _marker_fate(
    rpc: JsonRpc, history: SolanaHistory, marker: str, ours: Collection[str]
) -> str:
    """Return who made a batch's marker, as far as the finalized chain tells."""
    slot = int(await rpc.call("getSlot", _FINALIZED))
    reply = await rpc.call("getAccountInfo", marker, {**_FINALIZED, "encoding": "base64"})
    if reply["value"] is None:
        # A node that lags behind does not see it yet.
        return "absent" if reply["context"]["slot"] >= slot else _NOT_KNOWN
    origin = await history.maker_of(marker)
    if origin is None:
        return _NAMELESS
    if not origin.ours:
        return f"touched by a stranger's {origin.signature}"
    return _OURS if origin.signature in ours else f"made by {origin.signature}"


async def _fate(rpc: JsonRpc, signature: str, last_valid_block_height: int) -> str:
    look = await StatusPoll(rpc).look(signature)
    match look.status:
        case StatusFinal(_, None):
            return "minted"
        case StatusFinal(_, error):
            return f"{_FAILED}{error}"
        case StatusUnknown(context_slot):
            if look.height <= last_valid_block_height:
                return "may still land"
            # An answer older than the height that it is judged by proves nothing.
            return _NEVER if context_slot >= look.slot else _NOT_KNOWN
    return "in a block"


def _minted_nothing(fate: str) -> bool:
    return fate == _NEVER or fate.startswith(_FAILED)


@batch.command("foreign")
@click.argument("signature")
@click.option("--reason", required=True, help="Kept in the audit log.")
@click.option("--yes", is_flag=True, help="Do it; without, only the mint is shown.")
@click.pass_obj
def batch_foreign(context: CommandContext, signature: str, reason: str, yes: bool) -> None:
    """Declare a mint that the store does not know not ours, such as a thief's.

    The audit counts it apart from then on, and minting goes on after the next start.
    """
    mint = asyncio.run(_foreign_mint(context, signature))
    shown = {
        "signature": mint.signature,
        "slot": mint.slot,
        "memo": mint.memo,
        "payments": {account: str(units) for account, units in mint.payments.items()},
    }
    click.echo(json.dumps(shown, indent=2))
    if not yes:
        click.echo("nothing was changed; run again with --yes")
        return
    SqlForeignMints(context.database(), context.clock, actor=context.actor).acknowledge(
        mint, reason
    )
    click.echo(f"{signature} is on record as foreign; start the minter again")


async def _foreign_mint(context: CommandContext, signature: str) -> ChainMint:
    """Return a mint that the store does not know; raises for one of our own minter."""
    if not _SIGNATURE.match(signature):
        raise ValidationError(
            "InvalidSignature",
            f"{signature[:100]!r} is no transaction's signature; copy it from `gtx-cloud audit`",
        )
    if signature in SqlAuditStore(context.database()).known_signatures():
        raise ValidationError("KnownMint", f"{signature} is on record already")
    async with connected(context.settings) as rpc:
        token = await public_token(context.settings, rpc)
        history = SolanaHistory(rpc, token)
        mint = await history.mint_of(signature)
        if mint is None:
            raise NotFoundError(f"{signature} is no finalized mint by the token's authority")
        memo = parse_memo(mint.memo or "")
        markers = markers_of(context.settings, token)
        bases = [str(authority) for authority in await history.authorities()]
    # Nobody without the deployment's secret makes a batch's marker.
    if memo and any(
        replace(markers, base=base).address(memo.batch_id) in mint.created for base in bases
    ):
        raise DisputedBatchError(
            f"{signature} is our own minter's batch {memo.batch_id}, which this store has lost; run"
            " `gtx-cloud rebuild`, or restore a newer backup"
        )
    return mint


@click.command("rebuild")
@click.option("--apply", is_flag=True, help="Write it; without, only what would be done is shown.")
@json_option
@click.pass_obj
def rebuild(context: CommandContext, apply: bool, as_json: bool) -> int:
    """Restore minted batches from the chain and the stored lines; stop the minter first."""
    desk = _desk(context)
    with context.database().only_minter():
        found = asyncio.run(_plan(context, desk))
        for one in found.restored if apply else ():
            desk.restore(one)
    rows: list[dict[str, object]] = [
        {
            "batch": one.memo.batch_id,
            "signature": one.mint.signature,
            "readings": len(one.lines),
            "wh": sum(line.credit_wh for line in one.lines),
            "done": apply,
        }
        for one in found.restored
    ]
    faults = [asdict(one) for one in found.differences]
    if as_json:
        click.echo(
            json.dumps({"restored": rows, "differences": faults, "applied": apply}, indent=2)
        )
    else:
        for table in filter(None, (rows, faults)):
            context.emit(table, as_json=False)
        verb = "restored" if apply else "to restore; run again with --apply"
        click.echo(f"{len(rows)} batches {verb}; {len(faults)} left to an operator")
    return 1 if faults else 0


async def _plan(context: CommandContext, desk: SqlBatchDesk) -> RebuildPlan:
    snapshot = SqlAuditStore(context.database()).snapshot()
    known = {one.signature for one in snapshot.batches if one.state == "final"} | snapshot.foreign
    rate = conversion_of(context.settings)
    async with connected(context.settings) as rpc:
        token = await public_token(context.settings, rpc)
        mints = [
            mint async for mint in SolanaHistory(rpc, token).mints() if mint.signature not in known
        ]
    lines = desk.lines(SolanaWallets(token))
    return plan(mints[::-1], lines, desk.states(), rate.base_units_per_wh)


COMMANDS: tuple[click.Command, ...] = (batch, rebuild)
