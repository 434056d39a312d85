"""Shell completion."""

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash  gtx-agent completion bash > /etc/bash_completion.d/gtx-agent
    zsh   gtx-agent completion zsh > "${fpath[1]}/_gtx-agent"
    fish  gtx-agent completion fish > ~/.config/fish/completions/gtx-agent.fish
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.BadParameter(f"{shell} is not known to click")
    program = context.find_root().command
    click.echo(kind(program, {}, "gtx-agent", "_GTX_AGENT_COMPLETE").source())
