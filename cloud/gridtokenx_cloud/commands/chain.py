"""Commands about the cluster: make the token, and say whether everything is fit for minting."""

import asyncio
import json
from dataclasses import asdict
from typing import Any

import click
from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.keystore import prove
from gridtokenx_cloud.adapters.solana_rpc.checks import Check, Wanted
from gridtokenx_cloud.adapters.solana_rpc.mint_creation import MintCreation, MintSpec
from gridtokenx_cloud.adapters.solana_rpc.preflight import preflight
from gridtokenx_cloud.adapters.solana_rpc.rpc import JsonRpc
from gridtokenx_cloud.adapters.solana_rpc.setup import airdrop as ask_for_airdrop
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN_PROGRAMS
from gridtokenx_cloud.adapters.store.books import read_books
from gridtokenx_cloud.batching import unit_price_micro_lamports
from gridtokenx_cloud.commands.context import CommandContext
from gridtokenx_cloud.commands.rotation import rotate_authority
from gridtokenx_cloud.errors import CloudError, ConfigError, SchemaError, ValidationError
from gridtokenx_cloud.key_wiring import Keys, load_keys
from gridtokenx_cloud.mint_wiring import connected, price_bounds, token_of
from gridtokenx_cloud.ports.upkeep import Books
from gridtokenx_cloud.settings import Settings

_AIRDROP_LAMPORTS = 10 * 10**9

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("mint-account")
def mint_account() -> None:
    """The token's account on the chain."""


mint_account.add_command(rotate_authority)


@mint_account.command("create")
@click.option("--name", default="", help="What the token is called; Token-2022 only.")
@click.option("--symbol", default="", help="Its short name; Token-2022 only.")
@click.option("--uri", default="", help="Where more is told about it; Token-2022 only.")
@click.option(
    "--program",
    type=click.Choice(list(TOKEN_PROGRAMS)),
    help="Token program; default: BLOCKCHAIN_TOKEN_PROGRAM.",
)
@click.option("--decimals", type=click.IntRange(0, 9), default=9, show_default=True)
@click.option(
    "--number",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Another one makes another token that says the same of itself.",
)
@click.option("--airdrop", is_flag=True, help="Fund the fee payer first; test clusters only.")
@click.option("--dry-run", is_flag=True, help="Say what it costs and where it will be; no more.")
@json_option
@click.pass_obj
def mint_account_create(
    context: CommandContext,
    /,
    program: str | None,
    airdrop: bool,
    dry_run: bool,
    as_json: bool,
    **said: Any,
) -> None:
    """Make the token whose mint authority is BLOCKCHAIN_MINT_AUTHORITY_KEY.

    The same command finds what an earlier one made, wherever that was stopped. Nobody can freeze
    the holders' accounts; name, symbol and URI can't be changed afterwards.
    """
    settings = context.settings
    chosen = program or settings.blockchain.token_program
    keys = load_keys(settings)
    authority = Pubkey.from_string(keys.authority.address)
    spec = MintSpec(program=TOKEN_PROGRAMS[chosen], authority=authority, **said)
    _refuse_another(settings, spec)
    made = asyncio.run(_create(settings, keys, spec, airdrop, dry_run))
    if as_json:
        click.echo(json.dumps(made))
        return
    for name in ("mint_address", "token_program", "genesis_hash"):
        click.echo(f"BLOCKCHAIN_{name.upper()}={made[name]}")


def _refuse_another(settings: Settings, spec: MintSpec) -> None:
    spec.check()
    configured = settings.blockchain.mint_address
    if configured is not None and configured != str(spec.address):
        raise ConfigError(
            (
                f"BLOCKCHAIN_MINT_ADDRESS={configured} is set, and these options make another"
                f" token, {spec.address}; remove the setting to make it",
            )
        )


async def _create(
    settings: Settings, keys: Keys, spec: MintSpec, airdrop: bool, dry_run: bool
) -> dict[str, object]:
    async with connected(settings) as rpc:
        if airdrop:
            payer = Pubkey.from_string(keys.payer.address)
            await ask_for_airdrop(rpc, payer, _AIRDROP_LAMPORTS)
        price = await _unit_price(settings, rpc, keys)
        creation = MintCreation(rpc, spec, keys.payer, keys.authority, price)
        cost = await creation.cost()
        click.echo(
            f"{spec.address} takes {cost.lamports} lamports (rent {cost.rent_lamports}, fee"
            f" {cost.fee_lamports}) of the {cost.payer_lamports} of {keys.payer.address}",
            err=True,
        )
        if not dry_run and cost.payer_lamports < cost.lamports:
            raise ValidationError(
                "InsufficientFunds",
                f"{keys.payer.address} lacks {cost.lamports - cost.payer_lamports} lamports; send"
                " them, or use --airdrop on a test cluster",
            )
        address = spec.address if dry_run else await creation.make()
        program = next(name for name, key in TOKEN_PROGRAMS.items() if key == spec.program)
        return {
            "mint_address": str(address),
            "token_program": program,
            "genesis_hash": str(await rpc.call("getGenesisHash")),
            "rent_lamports": cost.rent_lamports,
            "fee_lamports": cost.fee_lamports,
            "dry_run": dry_run,
        }


async def _unit_price(settings: Settings, rpc: JsonRpc, keys: Keys) -> int:
    recent = await rpc.call("getRecentPrioritizationFees", [keys.payer.address])
    seen = [entry["prioritizationFee"] for entry in recent]
    return unit_price_micro_lamports(seen, *price_bounds(settings))


@click.command("check-chain")
@json_option
@click.pass_obj
def check_chain(context: CommandContext, as_json: bool) -> int:
    """Read all that minting needs from cluster, keys and store; exit 1 for a no-go."""
    checks = asyncio.run(_checks(context))
    go = all(check.ok is not False for check in checks)
    if as_json:
        shown = [asdict(check) for check in checks]
        click.echo(json.dumps({"go": go, "checks": shown}, indent=2))
        return 0 if go else 1
    words = {True: "ok", False: "NO", None: "-"}
    rows = [
        {
            "check": check.name,
            "result": words[check.ok],
            "found": check.detail,
            "way out": check.way_out or None,
        }
        for check in checks
    ]
    context.emit(rows, as_json=False)
    click.echo("go" if go else "no-go")
    return 0 if go else 1


async def _checks(context: CommandContext) -> list[Check]:
    settings = context.settings
    keys = load_keys(settings)
    wanted = Wanted(
        token=token_of(settings, keys),
        genesis_hash=settings.blockchain.genesis_hash,
        format=settings.blockchain.transaction_format,
        low_transactions=settings.blockchain.payer_low_transactions,
        price_bounds_micro_lamports=price_bounds(settings),
        books=lambda: _books(context),
        now_ms=context.clock.now_ms,
    )
    async with connected(settings) as rpc:
        return [*await _key_checks(keys), *await preflight(rpc, wanted)]


async def _key_checks(keys: Keys) -> list[Check]:
    """Return whether each key signs; a service is asked, a file only read."""
    found: list[Check] = []
    for role, key in (("minting key", keys.authority), ("paying key", keys.payer)):
        try:
            await prove(key)
        except CloudError as exc:
            way_out = "cure the signer before minting is switched on"
            found.append(Check(role, ok=False, detail=str(exc), way_out=way_out))
        else:
            found.append(Check(role, ok=True, detail=f"signs as {key.address}"))
    return found


def _books(context: CommandContext) -> Books | None:
    """Return what the store says; before `gtx-cloud migrate` there is none to ask."""
    try:
        return read_books(context.database(), context.clock.now_ms())
    except (ConfigError, SchemaError):
        return None


COMMANDS: tuple[click.Command, ...] = (mint_account, check_chain)
