"""Commands about who may send what: user, gateway, meter, held."""

from datetime import UTC, datetime

import click

from gridtokenx_cloud.adapters.store.enrolment import SqlEnrolment
from gridtokenx_cloud.adapters.store.held import SqlHeldReadings
from gridtokenx_cloud.adapters.store.overrides import SqlOverrides
from gridtokenx_cloud.adapters.store.registry import SqlRegistry
from gridtokenx_cloud.commands.context import CommandContext
from gridtokenx_cloud.commands.gateway import gateway
from gridtokenx_cloud.events import rfc3339
from gridtokenx_cloud.ports.admin import WalletSeen
from gridtokenx_cloud.verify import EpochPolicy, ReadingRules

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def _registry(context: CommandContext) -> SqlRegistry:
    return SqlRegistry(context.database(), context.clock, actor=context.actor)


def _held(context: CommandContext) -> SqlHeldReadings:
    return SqlHeldReadings(context.database(), context.clock, actor=context.actor)


def _moves(context: CommandContext) -> SqlEnrolment:
    return SqlEnrolment(context.database(), context.clock, actor=context.actor)


def _rules(context: CommandContext) -> ReadingRules:
    from gridtokenx_cloud.settings.live import overridden

    overrides = SqlOverrides(context.database(), context.clock, actor=context.actor)
    return overridden(context.settings, overrides.values()).reading_rules


@click.group("user")
def user() -> None:
    """Owners of meters, and the wallets their tokens go to."""


@user.command("add")
@click.argument("user_id")
@click.option("--wallet", required=True, help="Base58 address of the owner's own wallet.")
@as_json
@click.pass_obj
def user_add(context: CommandContext, user_id: str, wallet: str, as_json: bool) -> None:
    """Enrol the owner USER_ID.

    Where GTX_CLOUD_SOLANA_RPC_URLS is set, the chain is asked whether the wallet is a person's. One
    that does not exist there yet is right.
    """
    seen = _look_at(context, user_id, wallet)
    _registry(context).add_user(user_id, wallet)
    _show_wallet(context, user_id, wallet, seen, as_json)


@user.command("list")
@as_json
@click.pass_obj
def user_list(context: CommandContext, as_json: bool) -> None:
    """Show every owner."""
    context.emit(_registry(context).users(), as_json)


@user.command("wallet")
@click.argument("user_id")
@click.argument("wallet")
@as_json
@click.pass_obj
def user_wallet(context: CommandContext, user_id: str, wallet: str, as_json: bool) -> None:
    """Send the tokens of USER_ID to another WALLET, also for credits that wait."""
    seen = _look_at(context, user_id, wallet)
    _moves(context).set_wallet(user_id, wallet)
    _show_wallet(context, user_id, wallet, seen, as_json)


def _look_at(context: CommandContext, user_id: str, wallet: str) -> WalletSeen:
    from gridtokenx_cloud.wallets import check_wallet

    return check_wallet(context.settings, user_id, wallet)


def _show_wallet(
    context: CommandContext, user_id: str, wallet: str, seen: WalletSeen, as_json: bool
) -> None:
    row: dict[str, object] = {"user_id": user_id, "wallet": wallet, "on_chain": seen.on_chain}
    if as_json:
        row["warning"] = seen.warning
    elif seen.warning:
        click.echo(f"warning: {seen.warning}", err=True)
    context.emit([row], as_json)


@click.group("meter")
def meter() -> None:
    """Meters, each behind one gateway and for one owner."""


@meter.command("add")
@click.argument("meter_id")
@click.option("--gateway", "gateway_id", required=True, help="Gateway that reads the meter.")
@click.option("--user", "user_id", required=True, help="Owner its tokens go to.")
@click.option("--rated-power-w", type=int, required=True, help="Most the plant can feed in, W.")
@click.option("--resolution-wh", type=int, default=1, show_default=True, help="Of the register.")
@click.option(
    "--epoch-policy",
    type=click.Choice(["first", "any", "none"]),
    default="first",
    show_default=True,
    help="Which new counts are taken without `accept-epoch`.",
)
@as_json
@click.pass_obj
def meter_add(
    context: CommandContext,
    meter_id: str,
    gateway_id: str,
    user_id: str,
    rated_power_w: int,
    resolution_wh: int,
    epoch_policy: EpochPolicy,
    as_json: bool,
) -> None:
    """Enrol the meter METER_ID."""
    _registry(context).add_meter(
        meter_id,
        gateway_id=gateway_id,
        user_id=user_id,
        rated_power_w=rated_power_w,
        resolution_wh=resolution_wh,
        epoch_policy=epoch_policy,
    )
    context.emit([{"meter_id": meter_id, "gateway_id": gateway_id, "user_id": user_id}], as_json)


@meter.command("list")
@as_json
@click.pass_obj
def meter_list(context: CommandContext, as_json: bool) -> None:
    """Show every meter with its newest epoch."""
    context.emit(_registry(context).meters(), as_json)


@meter.command("move")
@click.argument("meter_id")
@click.option("--gateway", "gateway_id", help="Gateway that reads the meter from then on.")
@click.option("--user", "user_id", help="Owner of the readings from then on.")
@click.option(
    "--from",
    "moment",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"]),
    help="First moment, UTC. Default: now.",
)
@as_json
@click.pass_obj
def meter_move(
    context: CommandContext,
    meter_id: str,
    gateway_id: str | None,
    user_id: str | None,
    moment: datetime | None,
    as_json: bool,
) -> None:
    """Move METER_ID to another gateway or another owner; stored readings stay whose they were."""
    if (gateway_id is None) == (user_id is None):
        raise click.UsageError("give --gateway or --user, one of both")
    from_ms = context.clock.now_ms()
    if moment is not None:
        from_ms = int(moment.replace(tzinfo=UTC).timestamp()) * 1000
    if gateway_id is not None:
        _moves(context).move_to_gateway(meter_id, gateway_id, from_ms)
    elif user_id is not None:
        _moves(context).change_owner(meter_id, user_id, from_ms)
    row = {"meter_id": meter_id, "gateway_id": gateway_id, "user_id": user_id}
    context.emit([row | {"from": rfc3339(from_ms)}], as_json)


@meter.command("rated-power")
@click.argument("meter_id")
@click.argument("rated_power_w", type=int)
@as_json
@click.pass_obj
def meter_rated_power(
    context: CommandContext, meter_id: str, rated_power_w: int, as_json: bool
) -> None:
    """Correct the most that METER_ID's plant can feed in, in W."""
    _moves(context).set_rated_power(meter_id, rated_power_w)
    context.emit([{"meter_id": meter_id, "rated_power_w": rated_power_w}], as_json)


@meter.command("accept-epoch")
@click.argument("meter_id")
@click.argument("epoch")
@as_json
@click.pass_obj
def meter_accept_epoch(context: CommandContext, meter_id: str, epoch: str, as_json: bool) -> None:
    """Confirm that METER_ID began a new count, EPOCH, and judge the readings held for it."""
    readings = _held(context).accept_epoch(meter_id, epoch, _rules(context))
    context.emit([{"meter_id": meter_id, "epoch": epoch, "readings": readings}], as_json)


@click.group("held")
def held() -> None:
    """Readings that wait for your decision."""


@held.command("list")
@as_json
@click.pass_obj
def held_list(context: CommandContext, as_json: bool) -> None:
    """Show every held reading, the oldest first."""
    context.emit(_held(context).list_held(), as_json)


@held.command("release")
@click.argument("reading_id", type=int)
@as_json
@click.pass_obj
def held_release(context: CommandContext, reading_id: int, as_json: bool) -> None:
    """Credit what the register moved up to READING_ID."""
    credit_wh = _held(context).release(reading_id)
    context.emit([{"reading_id": reading_id, "credit_wh": credit_wh}], as_json)


@held.command("reject")
@click.argument("reading_id", type=int)
@click.option("--reason", required=True, help="Kept in the audit log and shown to the owner.")
@as_json
@click.pass_obj
def held_reject(context: CommandContext, reading_id: int, reason: str, as_json: bool) -> None:
    """Refuse READING_ID for good; the next good reading credits what the register moved."""
    _held(context).reject(reading_id, reason)
    context.emit([{"reading_id": reading_id, "status": "rejected"}], as_json)


GROUPS: tuple[click.Group, ...] = (user, gateway, meter, held)
