"""Operators' commands: look at a batch, decide a dispute, restore what the chain has."""

import asyncio
import json
from dataclasses import asdict

import click

from gridtokenx_cloud.adapters.solana_rpc.history import SolanaHistory
from gridtokenx_cloud.adapters.solana_rpc.rpc import JsonRpc
from gridtokenx_cloud.adapters.solana_rpc.status import StatusPoll
from gridtokenx_cloud.adapters.solana_rpc.transactions import SolanaWallets
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.mint_rebuild import Shown, SqlBatchDesk
from gridtokenx_cloud.commands.context import CommandContext
from gridtokenx_cloud.errors import DisputedBatchError
from gridtokenx_cloud.mint_state import StatusFinal, StatusUnknown
from gridtokenx_cloud.mint_wiring import connected, conversion_of, public_token
from gridtokenx_cloud.rebuild import RebuildPlan, plan

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
        found = [
            await _fate(rpc, one["signature"], one["last_valid_block_height"]) for one in attempts
        ]
        marker = await history.exists(str(shown["marker"]))
    alive = any(fate in ("minted", "may still land", "in a block") for fate in found)
    return {
        "batch_id": shown["batch_id"],
        "state": shown["state"],
        "dispute": shown["dispute"],
        "attempts": {one["signature"]: fate for one, fate in zip(attempts, found, strict=True)},
        "marker_exists": marker,
        "may_have_minted": alive,
    }


async def _fate(rpc: JsonRpc, signature: str, last_valid_block_height: int) -> str:
    look = await StatusPoll(rpc).look(signature)
    match look.status:
        case StatusFinal(_, None):
            return "minted"
        case StatusFinal(_, error):
            return f"failed: {error}"
        case StatusUnknown():
            expired = look.height > last_valid_block_height
            return "never landed" if expired else "may still land"
    return "in a block"


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
        context.emit(rows, as_json=False)
        context.emit(faults, as_json=False)
        verb = "restored" if apply else "to restore; run again with --apply"
        click.echo(f"{len(rows)} batches {verb}; {len(faults)} left to an operator")
    return 1 if faults else 0


async def _plan(context: CommandContext, desk: SqlBatchDesk) -> RebuildPlan:
    snapshot = SqlAuditStore(context.database()).snapshot()
    known = {one.signature for one in snapshot.batches if one.state == "final"}
    rate = conversion_of(context.settings)
    async with connected(context.settings) as rpc:
        token = await public_token(context.settings, rpc)
        mints = [
            mint async for mint in SolanaHistory(rpc, token).mints() if mint.signature not in known
        ]
    lines = desk.lines(SolanaWallets(token))
    return plan(mints[::-1], lines, desk.states(), rate.base_units_per_wh)


COMMANDS: tuple[click.Command, ...] = (batch, rebuild)
