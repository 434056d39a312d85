"""Commands about what is minted: check it against the store, prove a reading, send on."""

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path

import click
from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.solana_rpc.history import SolanaHistory
from gridtokenx_cloud.adapters.solana_rpc.rpc import connect
from gridtokenx_cloud.adapters.solana_rpc.setup import read_token, rents_lamports
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.mint_retry import SqlRetryQueue
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.archive_wiring import archive_folder
from gridtokenx_cloud.audit import run_audit
from gridtokenx_cloud.batching import (
    compute_unit_limit,
    estimate_fee,
    parse_memo,
    unit_price_micro_lamports,
)
from gridtokenx_cloud.commands.context import CommandContext
from gridtokenx_cloud.errors import ValidationError
from gridtokenx_cloud.formats import max_recipients
from gridtokenx_cloud.mint_wiring import (
    connected,
    conversion_of,
    format_of,
    public_token,
)
from gridtokenx_cloud.ports.audit import AuditReport
from gridtokenx_cloud.proof import is_in_batch, make_proof, proof_from_json, proof_to_json
from gridtokenx_cloud.settings import Settings
from gridtokenx_wire import base58
from gridtokenx_wire.encoding import parse_line
from gridtokenx_wire.errors import WireError
from gridtokenx_wire.record import SlotRecord
from gridtokenx_wire.signing import RECORD_DOMAIN, open_sealed

_MOST_UNITS, _MOST_UNITS_PER_RECIPIENT = 5_000, 1_300

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("audit")
@click.option("--lines", is_flag=True, help="Hash every line of every batch again, archived too.")
@json_option
@click.pass_obj
def audit(context: CommandContext, lines: bool, as_json: bool) -> int:
    """Compare the store with the chain, batch by batch; exit 1 when they differ."""
    report = asyncio.run(_audit(context))
    if lines:
        store = SqlAuditStore(context.database(), archive_folder(context.settings.cloud))
        report = replace(report, differences=(*report.differences, *store.line_faults()))
    if as_json:
        found = [asdict(difference) for difference in report.differences]
        sums = {name: str(value) for name, value in asdict(report.sums).items()}
        click.echo(json.dumps({"ok": report.ok, "differences": found, "sums": sums}, indent=2))
    else:
        rows = [{"sum": name, "value": value} for name, value in asdict(report.sums).items()]
        context.emit(rows, as_json=False)
        if report.differences:
            context.emit([asdict(one) for one in report.differences], as_json=False)
        click.echo("ok" if report.ok else f"{len(report.differences)} differences")
    return 0 if report.ok else 1


async def _audit(context: CommandContext) -> AuditReport:
    store = SqlAuditStore(context.database())
    async with connected(context.settings) as rpc:
        history = SolanaHistory(rpc, await public_token(context.settings, rpc))
        return await run_audit(store, history, conversion_of(context.settings))


@click.group("retry")
def retry() -> None:
    """Credits that a rule or the chain refused."""


def _queue(context: CommandContext) -> SqlRetryQueue:
    return SqlRetryQueue(context.database(), context.clock, actor=context.actor)


@retry.command("list")
@click.option("--parked", is_flag=True, help="Only those that wait for an operator.")
@json_option
@click.pass_obj
def retry_list(context: CommandContext, parked: bool, as_json: bool) -> None:
    """Show the queue."""
    context.emit(_queue(context).rows(parked_only=parked), as_json)


@retry.command("requeue")
@click.argument("reading_ids", nargs=-1, required=True, type=click.INT)
@json_option
@click.pass_obj
def retry_requeue(context: CommandContext, reading_ids: tuple[int, ...], as_json: bool) -> None:
    """Let the next pass try these readings again."""
    for reading_id in reading_ids:
        _queue(context).requeue(reading_id)
    context.emit([{"reading_id": one, "status": "requeued"} for one in reading_ids], as_json)


@retry.command("give-up")
@click.argument("reading_ids", nargs=-1, required=True, type=click.INT)
@json_option
@click.pass_obj
def retry_give_up(context: CommandContext, reading_ids: tuple[int, ...], as_json: bool) -> None:
    """Lay these readings aside; their credit is kept and can be requeued."""
    for reading_id in reading_ids:
        _queue(context).give_up(reading_id)
    context.emit([{"reading_id": one, "status": "given up"} for one in reading_ids], as_json)


@click.command("estimate-fee")
@click.option("--recipients", type=click.IntRange(1, 64), default=12, show_default=True)
@click.option("--new-accounts", type=click.IntRange(0, 64), default=0, show_default=True)
@json_option
@click.pass_obj
def estimate(context: CommandContext, recipients: int, new_accounts: int, as_json: bool) -> None:
    """Say what minting to so many wallets costs now; rent comes back, fees do not."""
    row = asyncio.run(_estimate(context.settings, recipients, new_accounts))
    context.emit([row], as_json)


async def _estimate(settings: Settings, recipients: int, new_accounts: int) -> dict[str, int | str]:
    group = settings.blockchain
    signatures = 1 if group.fee_payer_key == group.mint_authority_key else 2
    async with connected(settings) as rpc:
        token = await public_token(settings, rpc)
        form = await format_of(settings, rpc, token.authority)
        recent = await rpc.call("getRecentPrioritizationFees", [str(token.mint)])
        marker_rent, account_rent = await rents_lamports(rpc, token.program)
    price = unit_price_micro_lamports(
        [entry["prioritizationFee"] for entry in recent],
        group.priority_fee_floor_micro_lamports,
        group.priority_fee_cap_micro_lamports,
    )
    per_transaction = min(group.max_batch_size, max_recipients(form, signatures))
    transactions = -(-recipients // per_transaction)
    units = _MOST_UNITS + _MOST_UNITS_PER_RECIPIENT * min(recipients, per_transaction)
    fee = estimate_fee(signatures, price, compute_unit_limit(units))
    return {
        "format": form.value,
        "transactions": transactions,
        "price_micro_lamports": price,
        "fee_lamports": transactions * fee,
        "marker_rent_lamports": transactions * marker_rent,
        "account_rent_lamports": new_accounts * account_rent,
    }


@click.command("proof")
@click.argument("reading_id", type=click.INT)
@click.pass_obj
def proof(context: CommandContext, reading_id: int) -> None:
    """Print the proof of one minted reading as JSON; anybody can check it with verify-proof."""
    archive = archive_folder(context.settings.cloud)
    source = SqlAuditStore(context.database(), archive).proof_source(reading_id)
    click.echo(proof_to_json(make_proof(source)))


@click.command("verify-proof")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--gateway", required=True, help="Public key of the gateway, base58.")
@click.option("--rpc-url", required=True, help="Any RPC endpoint of the cluster.")
@json_option
def verify_proof(file: Path, gateway: str, rpc_url: str, as_json: bool) -> None:
    """Check a proof against the chain, with nothing of ours; exit 1 when it does not hold."""
    proven = asyncio.run(_verified(file.read_text(encoding="utf-8"), gateway, rpc_url))
    if as_json:
        click.echo(json.dumps({"ok": True, **proven}, indent=2))
        return
    click.echo(
        "proven: meter {meter_id} read {export_wh} Wh exported (reading {seq} of epoch {epoch}),"
        " signed by gateway {gateway}, in batch {batch_id} of {leaves} readings, minted by"
        " transaction {transaction}, slot {slot}".format_map(proven)
    )


async def _verified(text: str, gateway: str, rpc_url: str) -> dict[str, str | int]:
    """Return what was proven, one step after the other; a broken step raises."""
    given = proof_from_json(text)
    record = _signed_record(given.line.encode("ascii", "replace"), gateway)
    rpc, endpoints = connect([rpc_url], 10)
    try:
        token = await read_token(rpc, Pubkey.from_string(record.token))
        mint = await SolanaHistory(rpc, token).mint_of(given.transaction)
    finally:
        for endpoint in endpoints:
            await endpoint.close()
    if mint is None:
        raise ValidationError(
            "ProofInvalid",
            f"{given.transaction} is no finalized mint of token {record.token} by its authority",
        )
    memo = parse_memo(mint.memo or "")
    if memo is None or not is_in_batch(given, memo):
        raise ValidationError(
            "ProofInvalid", f"the line is not under the root in the memo of {given.transaction}"
        )
    stamp = record.stamp
    return {
        "meter_id": stamp.meter_id,
        "epoch": stamp.epoch,
        "seq": stamp.seq,
        "export_wh": record.export_wh,
        "gateway": gateway,
        "batch_id": memo.batch_id,
        "leaves": memo.leaves,
        "transaction": given.transaction,
        "slot": mint.slot,
    }


def _signed_record(line: bytes, gateway: str) -> SlotRecord:
    try:
        open_sealed(line, RECORD_DOMAIN, base58.decode_key(gateway), verify)
        record = parse_line(line)
    except WireError as exc:
        raise ValidationError("ProofInvalid", f"not signed by {gateway}: {exc}") from exc
    if not isinstance(record, SlotRecord):
        raise ValidationError("ProofInvalid", f"a {record.kind} record is never minted")
    return record


COMMANDS: tuple[click.Command, ...] = (
    audit,
    retry,
    estimate,
    proof,
    verify_proof,
)
