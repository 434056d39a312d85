"""Commands about signing keys: make, seal, show, check. No secret is ever printed."""

import asyncio
from pathlib import Path

import click
from pydantic import SecretStr
from solders.keypair import Keypair

from gridtokenx_cloud.adapters.keystore import LocalSigner, load_key, prove
from gridtokenx_cloud.adapters.keystore.files import write_new, write_signer
from gridtokenx_cloud.adapters.keystore.opening import read_password
from gridtokenx_cloud.adapters.keystore.sealed import load_sealed_key, seal, sealed_address
from gridtokenx_cloud.commands.context import CommandContext
from gridtokenx_cloud.errors import CloudError, ConfigError
from gridtokenx_cloud.key_wiring import open_key
from gridtokenx_cloud.ports.keys import KeyFile, KeySource, RemoteKey, SealedKeyFile
from gridtokenx_cloud.settings import Settings
from gridtokenx_cloud.settings.keys import parse_key_source

_SHORTEST_PASSWORD = 12
_ROLES = (("mint_authority", "mint_authority_key"), ("fee_payer", "fee_payer_key"))

_new_file = click.Path(path_type=Path, dir_okay=False)
_password_option = click.option(
    "--password-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="One line, mode 0600; without it the password is asked for.",
)


@click.group("keys")
def keys() -> None:
    """Signing keys."""


@keys.command("new")
@click.argument("path", type=_new_file)
@click.option("--sealed", is_flag=True, help="Seal it with a password at once.")
@_password_option
def keys_new(path: Path, sealed: bool, password_file: Path | None) -> None:
    """Make a key in a new file of mode 0600, and print its address."""
    signer = LocalSigner(Keypair())
    if sealed:
        write_new(path, seal(signer, _new_password(password_file)))
    else:
        write_signer(path, signer)
    click.echo(signer.address)


@keys.command("encrypt")
@click.argument("source", type=_new_file)
@click.argument("target", type=_new_file)
@_password_option
def keys_encrypt(source: Path, target: Path, password_file: Path | None) -> None:
    """Seal the key of SOURCE into the new file TARGET; SOURCE stays as it is."""
    password = _new_password(password_file)
    write_new(target, seal(load_key(source), password))
    # Read back before anybody deletes the only other copy.
    click.echo(load_sealed_key(target, password).address)
    click.echo(f"{target} opens; remove {source} once a backup of {target} is kept", err=True)


@keys.command("show")
@click.argument("source")
def keys_show(source: str) -> None:
    """Print the address of a key: a path, or file:, enc: or keychain: as in the settings.

    That of a sealed file is what the file says; `keys check` opens it.
    """
    click.echo(_address(key_source(source)))


@keys.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def keys_check(context: CommandContext, as_json: bool) -> int:
    """Let every configured key sign something; exit 1 when one can't."""
    rows = [
        {"role": role, "source": str(source), **asyncio.run(_checked(context.settings, source))}
        for role, field in _ROLES
        if (source := getattr(context.settings.blockchain, field)) is not None
    ]
    context.emit(rows, as_json)
    return 0 if rows and all(row["result"] == "signs" for row in rows) else 1


async def _checked(settings: Settings, source: KeySource) -> dict[str, str]:
    try:
        signer = open_key(settings, source)
        await prove(signer)
    except CloudError as exc:
        return {"address": "-", "result": str(exc)}
    return {"address": signer.address, "result": "signs"}


def key_source(text: str) -> KeySource:
    """Return where a key is that a command was given: a path, or as in the settings.

    Raises:
        ConfigError: Says all that is wrong with it.
    """
    if not text.startswith(("file:", "enc:", "keychain:")):
        return KeyFile(Path(text))
    try:
        return parse_key_source(text)
    except ValueError as exc:
        raise ConfigError((f"{text.partition('?')[0]} {exc}",)) from None


def _address(source: KeySource) -> str:
    match source:
        case KeyFile(path):
            return load_key(path).address
        case SealedKeyFile(path):
            return sealed_address(path)
        case RemoteKey():
            return source.address


def _new_password(file: Path | None) -> SecretStr:
    if file is not None:
        password = read_password(file)
    else:
        password = SecretStr(
            click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        )
    if len(password.get_secret_value()) < _SHORTEST_PASSWORD:
        raise click.UsageError(f"the password is shorter than {_SHORTEST_PASSWORD} characters")
    return password


COMMANDS: tuple[click.Command, ...] = (keys,)
