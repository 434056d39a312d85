"""The command that gives the token a new mint authority."""

import asyncio

import click

from gridtokenx_cloud.commands.context import CommandContext
from gridtokenx_cloud.commands.keys import key_source
from gridtokenx_cloud.key_wiring import open_key
from gridtokenx_cloud.rotation import Handover, Rotation


@click.command("rotate-authority")
@click.option(
    "--new",
    "new",
    required=True,
    help="Where the new key is: file:, enc: or keychain:, as in .env.",
)
@click.option("--apply", is_flag=True, help="Do it; without, only what would be done is shown.")
@click.option(
    "--wait-secs",
    type=click.IntRange(1, 86_400),
    default=600,
    show_default=True,
    help="Patience with each batch that has to end first.",
)
@click.option(
    "--stolen",
    is_flag=True,
    help="A thief mints: do not wait for mints that the store does not know. Never on a restored"
    " store.",
)
@click.pass_obj
def rotate_authority(
    context: CommandContext, new: str, apply: bool, wait_secs: int, stolen: bool
) -> None:
    """Hand the token over to a new mint authority; stop the minter first.

    Batches in flight are brought to their end, then the chain gets the new authority, then the
    store. Stopped anywhere, the same command goes on from there.
    """
    settings = context.settings
    following = open_key(settings, key_source(new))
    rotation = Rotation(
        settings, context.database(), context.clock, following, context.actor, stolen=stolen
    )
    plan = asyncio.run(rotation.plan())
    for line in _told(plan):
        click.echo(line)
    if not apply:
        click.echo("nothing was changed; run again with --apply")
        return
    asyncio.run(rotation.apply(wait_secs))
    click.echo(f"{plan.following} is the mint authority; {plan.present} can mint no more")
    click.echo(f"BLOCKCHAIN_MINT_AUTHORITY_KEY={new}")


def _told(plan: Handover) -> list[str]:
    if plan.handed_over:
        return [f"the chain has {plan.following} already; the store follows"]
    lines = [f"{plan.present} hands over to {plan.following}"]
    if plan.unfinished:
        batches = ", ".join(map(str, plan.unfinished))
        lines.append(f"first these batches are brought to their end: {batches}")
    return lines
