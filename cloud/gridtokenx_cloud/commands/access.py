"""Commands about API tokens."""

import click

from gridtokenx_cloud.adapters.store.access import ROLES, SqlAccess
from gridtokenx_cloud.commands.context import CommandContext
from gridtokenx_cloud.events import rfc3339

_DAY_S = 86_400


@click.group("api-token")
def api_token() -> None:
    """Tokens with which people and programs sign in; only their hashes are stored."""


@api_token.command("create")
@click.argument("label")
@click.option("--role", type=click.Choice(ROLES), default="owner", show_default=True)
@click.option("--user", "user_id", help="The owner this token belongs to (role owner only).")
@click.option("--days", type=click.IntRange(1, 3650), help="Runs out after so many days.")
@click.option("--link", "origin", help="Print a sign-in link of the page at this origin instead.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_obj
def create(
    context: CommandContext,
    label: str,
    role: str,
    user_id: str | None,
    days: int | None,
    origin: str | None,
    as_json: bool,
) -> None:
    """Make a token named LABEL and print it once; it cannot be shown again."""
    access = SqlAccess(context.database(), context.clock)
    ttl_s = None if days is None else days * _DAY_S
    token = access.create_token(label, role, user_id, ttl_s, context.actor)
    # Behind the `#`: browsers keep that part to themselves, so no log ever holds it.
    link = None if origin is None else f"{origin.rstrip('/')}/#token={token}"
    if as_json:
        context.emit([{"label": label, "role": role, "token": token, "link": link}], as_json=True)
    else:
        click.echo(link or token)


@api_token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_obj
def list_tokens(context: CommandContext, as_json: bool) -> None:
    """List all tokens; the secrets are not among what is stored."""
    access = SqlAccess(context.database(), context.clock)
    rows = [
        {
            "label": token.label,
            "role": token.role,
            "user": token.user_id,
            "created": rfc3339(token.created_at_ms),
            "expires": None if token.expires_at_ms is None else rfc3339(token.expires_at_ms),
            "revoked": None if token.revoked_at_ms is None else rfc3339(token.revoked_at_ms),
        }
        for token in access.list_tokens()
    ]
    context.emit(rows, as_json)


@api_token.command("revoke")
@click.argument("label")
@click.pass_obj
def revoke(context: CommandContext, label: str) -> None:
    """End the token LABEL, its sessions and its open connections."""
    SqlAccess(context.database(), context.clock).revoke_token(label, context.actor)
    click.echo(f"revoked {label}")


GROUPS = (api_token,)
