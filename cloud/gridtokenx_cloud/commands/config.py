"""Commands about settings that change while the cloud runs."""

from collections.abc import Mapping

import click

from gridtokenx_cloud.adapters.store.overrides import SqlOverrides
from gridtokenx_cloud.commands.context import CommandContext

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group("config")
def config() -> None:
    """Settings that change while the cloud runs; they stand above the environment."""


def _overrides(context: CommandContext) -> SqlOverrides:
    return SqlOverrides(context.database(), context.clock, actor=context.actor)


def _change(context: CommandContext, values: Mapping[str, str | None]) -> None:
    from gridtokenx_cloud.settings.live import overridden

    _overrides(context).change(values, lambda texts: overridden(context.settings, texts))


@config.command("list")
@as_json
@click.pass_obj
def config_list(context: CommandContext, as_json: bool) -> None:
    """Show what can change: its value now, and who changed it."""
    from gridtokenx_cloud.settings.live import overridden, texts_of

    changed = {str(row["name"]): row for row in _overrides(context).rows()}
    texts = {name: str(row["value"]) for name, row in changed.items()}
    group = overridden(context.settings, texts)
    rows = [
        {
            "setting": name,
            "value": value,
            "changed_by": changed.get(name, {}).get("updated_by"),
            "changed_at": changed.get(name, {}).get("updated_at"),
        }
        for name, value in texts_of(group).items()
    ]
    context.emit(rows, as_json)


@config.command("set")
@click.argument("pairs", nargs=-1, required=True, metavar="NAME=VALUE...")
@click.pass_obj
def config_set(context: CommandContext, pairs: tuple[str, ...]) -> None:
    """Change settings in every running process, from its next cycle on."""
    values: dict[str, str | None] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise click.UsageError(f"{pair} is not NAME=VALUE")
        values[name] = text
    _change(context, values)
    click.echo("\n".join(pairs))


@config.command("unset")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def config_unset(context: CommandContext, names: tuple[str, ...]) -> None:
    """Go back to what the environment says."""
    from gridtokenx_cloud.settings.live import known

    known(names)
    _change(context, dict.fromkeys(names))
    click.echo("\n".join(names))


GROUPS = (config,)
