"""Commands about gateways: enrol by claim, replace a key, revoke, ask."""

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from gridtokenx_cloud.adapters.mosquitto import new_password, password_line
from gridtokenx_cloud.adapters.store.enrolment import SqlEnrolment
from gridtokenx_cloud.adapters.store.registry import SqlRegistry
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.commands.context import CommandContext
from gridtokenx_cloud.commands.remote import command as gateway_command
from gridtokenx_cloud.errors import NotFoundError
from gridtokenx_cloud.events import rfc3339
from gridtokenx_cloud.ports.admin import Enrolment
from gridtokenx_cloud.registry import open_claim
from gridtokenx_cloud.verify import EpochPolicy
from gridtokenx_wire.claim import MAX_CLAIM_BYTES

_DAY_MS = 86_400_000
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def _registry(context: CommandContext) -> SqlRegistry:
    return SqlRegistry(context.database(), context.clock, actor=context.actor)


def _moves(context: CommandContext) -> SqlEnrolment:
    return SqlEnrolment(context.database(), context.clock, actor=context.actor)


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
    powers = {one.meter_id: one.rated_power_w or rated_power_w for one in opened.meters}
    row = {
        "gateway_id": opened.gateway_id,
        "meters": ",".join(meters) or None,
        # As the installer said: the operator should see what limit it makes.
        "rated_power_w": ",".join(str(powers[meter_id]) for meter_id in meters) or None,
    }
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
    if all(row["gateway_id"] != gateway_id for row in _registry(context).gateways()):
        raise NotFoundError(
            f"Gateway {gateway_id} is not enrolled; `gtx-cloud gateway list` shows who is."
        )
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
