"""Commands about who may send what: user, gateway, meter, held."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

from gridtokenx_cloud.adapters.mosquitto import new_password, password_line
from gridtokenx_cloud.adapters.store.enrolment import SqliteEnrolment
from gridtokenx_cloud.adapters.store.held import SqliteHeldReadings
from gridtokenx_cloud.adapters.store.overrides import SqliteOverrides
from gridtokenx_cloud.adapters.store.registry import SqliteRegistry
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.commands.context import CommandContext
from gridtokenx_cloud.commands.remote import command as gateway_command
from gridtokenx_cloud.events import rfc3339
from gridtokenx_cloud.ports.admin import Enrolment
from gridtokenx_cloud.registry import open_claim
from gridtokenx_cloud.verify import EpochPolicy, ReadingRules
from gridtokenx_wire.claim import MAX_CLAIM_BYTES

_DAY_MS = 86_400_000
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def _registry(context: CommandContext) -> SqliteRegistry:
    return SqliteRegistry(context.database(), context.clock, actor=context.actor)


def _held(context: CommandContext) -> SqliteHeldReadings:
    return SqliteHeldReadings(context.database(), context.clock, actor=context.actor)


def _moves(context: CommandContext) -> SqliteEnrolment:
    return SqliteEnrolment(context.database(), context.clock, actor=context.actor)


def _rules(context: CommandContext) -> ReadingRules:
    from gridtokenx_cloud.settings.live import overridden

    overrides = SqliteOverrides(context.database(), context.clock, actor=context.actor)
    group = overridden(context.settings, overrides.values())
    return ReadingRules(
        max_reading_wh=int(group.max_reading_kwh * 1000),
        reading_max_age_days=group.reading_max_age_days,
    )


def _text_of(claim: str) -> str:
    """Return the claim itself: as given, from a file of that name, or from standard input."""
    if claim == "-":
        return sys.stdin.read(MAX_CLAIM_BYTES + 1)
    if claim.startswith("{"):
        return claim
    path = Path(claim)
    if not path.is_file():
        raise click.UsageError(f"{claim} is no claim and no file with one")
    return path.read_text(errors="replace")[: MAX_CLAIM_BYTES + 1]


def _emit_access(
    context: CommandContext, shown: Mapping[str, object], gateway_id: str, as_json: bool
) -> None:
    """Show a change with the gateway's way into the broker, the password this once."""
    row = dict(shown)
    password = new_password()
    line = password_line(gateway_id, password)
    if as_json:
        context.emit([row | {"broker_password": password, "password_line": line}], as_json)
        return
    context.emit([row], as_json)
    click.echo(f"\nbroker password (shown once): {password}")
    click.echo(f"line for the broker's password file:\n{line}")
    click.echo("the ACL needs no line: its patterns let a gateway reach its own topics only")


@click.group("user")
def user() -> None:
    """Owners of meters, and the wallets their tokens go to."""


@user.command("add")
@click.argument("user_id")
@click.option("--wallet", required=True, help="Base58 address of the owner's own wallet.")
@as_json
@click.pass_obj
def user_add(context: CommandContext, user_id: str, wallet: str, as_json: bool) -> None:
    """Enrol the owner USER_ID."""
    _registry(context).add_user(user_id, wallet)
    context.emit([{"user_id": user_id, "wallet": wallet}], as_json)


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
    _moves(context).set_wallet(user_id, wallet)
    context.emit([{"user_id": user_id, "wallet": wallet}], as_json)


@click.group("gateway")
def gateway() -> None:
    """Gateways, each known by its public key."""


@gateway.command("add")
@click.argument("gateway_id")
@click.option("--name", default="gateway", show_default=True, help="For people.")
@as_json
@click.pass_obj
def gateway_add(context: CommandContext, gateway_id: str, name: str, as_json: bool) -> None:
    """Enrol the gateway GATEWAY_ID, as `gtx-agent init` printed it."""
    _registry(context).add_gateway(gateway_id, name)
    context.emit([{"gateway_id": gateway_id, "name": name, "status": "active"}], as_json)


@gateway.command("accept")
@click.argument("claim", metavar="CLAIM")
@click.option("--user", "user_id", required=True, help="Owner of its meters.")
@click.option("--name", default="gateway", show_default=True, help="For people.")
@click.option("--rated-power-w", type=int, help="For meters whose claim does not say, W.")
@click.option(
    "--epoch-policy",
    type=click.Choice(["first", "any", "none"]),
    default="first",
    show_default=True,
    help="Which new counts are taken without `accept-epoch`.",
)
@as_json
@click.pass_obj
def gateway_accept(
    context: CommandContext,
    claim: str,
    user_id: str,
    name: str,
    rated_power_w: int | None,
    epoch_policy: EpochPolicy,
    as_json: bool,
) -> None:
    """Enrol a gateway and its meters by the CLAIM it printed: the line, its file, or - for stdin.

    A password for the broker is drawn and shown this once, with its line for the broker's
    password file. Accepting a later claim of the gateway adds the meters that are new.
    """
    opened = open_claim(_text_of(claim), verify)
    wanted = Enrolment(
        user_id=user_id, name=name, rated_power_w=rated_power_w, epoch_policy=epoch_policy
    )
    meters = _moves(context).accept(opened, wanted, context.settings.blockchain.mint_address)
    row = {"gateway_id": opened.gateway_id, "meters": ",".join(meters) or None}
    _emit_access(context, row, opened.gateway_id, as_json)


@gateway.command("rotate")
@click.argument("gateway_id")
@click.argument("successor_id")
@click.option(
    "--overlap-days",
    type=click.IntRange(0, 90),
    default=7,
    show_default=True,
    help="How long the former key counts beside the new one.",
)
@as_json
@click.pass_obj
def gateway_rotate(
    context: CommandContext, gateway_id: str, successor_id: str, overlap_days: int, as_json: bool
) -> None:
    """Give the meters of GATEWAY_ID to its new key SUCCESSOR_ID, as `gtx-agent keygen` printed it.

    The device goes on with the same count, and what it signed with the former key still counts.
    """
    until_ms = context.clock.now_ms() + overlap_days * _DAY_MS
    meters = _moves(context).rotate(gateway_id, successor_id, until_ms)
    row = {"gateway_id": successor_id, "meters": meters, "former_until": rfc3339(until_ms)}
    _emit_access(context, row, successor_id, as_json)


@gateway.command("password")
@click.argument("gateway_id")
@as_json
@click.pass_obj
def gateway_password(context: CommandContext, gateway_id: str, as_json: bool) -> None:
    """Draw a new broker password for GATEWAY_ID; nothing of it is stored here."""
    _emit_access(context, {"gateway_id": gateway_id}, gateway_id, as_json)


@gateway.command("revoke")
@click.argument("gateway_id")
@as_json
@click.pass_obj
def gateway_revoke(context: CommandContext, gateway_id: str, as_json: bool) -> None:
    """Take no further line of GATEWAY_ID; what is stored stays."""
    _registry(context).revoke_gateway(gateway_id)
    context.emit([{"gateway_id": gateway_id, "status": "revoked"}], as_json)


@gateway.command("list")
@as_json
@click.pass_obj
def gateway_list(context: CommandContext, as_json: bool) -> None:
    """Show every gateway."""
    context.emit(_registry(context).gateways(), as_json)


gateway.add_command(gateway_command)


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
