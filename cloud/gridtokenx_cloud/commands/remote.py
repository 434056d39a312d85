"""`gtx-cloud gateway command`: ask a gateway for something, and wait for its answer."""

import hashlib
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gridtokenx_cloud.commands.context import CommandContext
from gridtokenx_cloud.errors import CloudError
from gridtokenx_wire.command import Command, CommandName, Reply, decode_reply, encode_command
from gridtokenx_wire.errors import WireError

if TYPE_CHECKING:
    from gridtokenx_cloud.adapters.mqtt.connection import Broker

_NO_ANSWER = "no answer"
_MAX_WAIT_S = 3600


@click.command("command")
@click.argument("gateway_id")
@click.argument("name", metavar="COMMAND", type=click.Choice([name.value for name in CommandName]))
@click.argument("argument", required=False, default="")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(1, _MAX_WAIT_S),
    help="Seconds to wait; the command expires then. Default: 60, 300 for scan and set-config.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole reply as JSON.")
@click.pass_obj
def command(
    context: CommandContext,
    gateway_id: str,
    name: str,
    argument: str,
    timeout_s: int | None,
    as_json: bool,
) -> int:
    """Ask GATEWAY_ID to do COMMAND, signed with the cloud's key.

    read-now and status take no argument, and neither does restart. scan takes the bus URL of the
    gateway's configuration, and within the same quotes device ids such as 11-40 (without: 1-10);
    set-config takes the file with the whole new configuration.
    """
    wanted = CommandName(name)
    text = _argument(wanted, argument)
    slow = wanted in (CommandName.SCAN, CommandName.SET_CONFIG)
    reply = _ask(context, gateway_id, wanted, text, timeout_s or (300 if slow else 60))
    outcome = _NO_ANSWER if reply is None else reply.outcome
    detail = (
        "the gateway is offline or refuses what it cannot trust; see its log"
        if reply is None
        else reply.detail
    )
    result = {} if reply is None else dict(reply.result)
    if as_json:
        click.echo(json.dumps({"outcome": outcome, "detail": detail, "result": result}, indent=2))
    else:
        click.echo(f"{outcome}: {detail}" if detail else outcome)
        if result:
            click.echo(json.dumps(result, indent=2))
    return 0 if outcome == "done" else 1


def _argument(name: CommandName, argument: str) -> str:
    if name in (CommandName.SCAN, CommandName.SET_CONFIG):
        if not argument:
            what = "the bus URL" if name is CommandName.SCAN else "the configuration file"
            raise click.UsageError(f"{name} needs {what}")
        return argument if name is CommandName.SCAN else _text_of(Path(argument))
    if argument:
        raise click.UsageError(f"{name} takes no argument, not {argument!r}")
    return ""


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise click.UsageError(f"{path} cannot be read: {exc}") from exc


def _ask(
    context: CommandContext, gateway_id: str, name: CommandName, argument: str, timeout_s: int
) -> Reply | None:
    # paho and solders would double the start of every other `gateway` command.
    from gridtokenx_cloud.adapters.keystore import load_key
    from gridtokenx_cloud.adapters.mqtt.errand import ask_gateway
    from gridtokenx_cloud.adapters.store.command_book import SqlCommandBook
    from gridtokenx_cloud.adapters.verifier import verify
    from gridtokenx_cloud.settings import require

    cloud = context.settings.cloud
    key = load_key(require(cloud.cloud_key, "GTX_CLOUD_CLOUD_KEY"))
    nonce = secrets.token_hex(16)
    now_ms = context.clock.now_ms()
    try:
        payload = encode_command(
            Command(
                gateway_id=gateway_id,
                nonce=nonce,
                issued_ms=now_ms,
                expires_ms=now_ms + timeout_s * 1000,
                command=name,
                argument=argument,
            ),
            key.sign_now,
        )
    except WireError as exc:
        raise click.UsageError(str(exc)) from exc

    def read(reply: bytes) -> Reply | None:
        try:
            said = decode_reply(reply, gateway_id, verify)
        except WireError:
            return None
        return said if said.nonce == nonce else None

    broker = _broker(context)
    book = SqlCommandBook(context.database(), context.clock, actor=context.actor)
    book.issue(gateway_id, nonce, name, hashlib.sha256(argument.encode()).hexdigest())
    try:
        answer = ask_gateway(broker, gateway_id, payload, timeout_s, read)
    except CloudError as exc:
        book.close(gateway_id, nonce, "failed", str(exc))
        raise
    outcome, detail = (_NO_ANSWER, "") if answer is None else (answer.outcome, answer.detail)
    book.close(gateway_id, nonce, outcome, detail)
    return answer


def _broker(context: CommandContext) -> "Broker":
    from gridtokenx_cloud.adapters.mqtt.connection import Broker
    from gridtokenx_cloud.settings import require

    cloud = context.settings.cloud
    password = cloud.mqtt_password
    return Broker(
        require(cloud.mqtt_url, "GTX_CLOUD_MQTT_URL"),
        cloud.mqtt_username,
        password.get_secret_value() if password is not None else None,
        cloud.mqtt_ca_file,
        cloud.mqtt_cert_file,
        cloud.mqtt_key_file,
    )
