"""`meshd completion`: the script that a shell reads to complete meshd's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_MESHD_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that completes commands, options and node names.

    \b
    bash   source <(meshd completion bash)      for good: in ~/.bashrc
    zsh    source <(meshd completion zsh)       for good: in ~/.zshrc
    fish   meshd completion fish | source       for good: in ~/.config/fish/config.fish
    """
    from meshd.cli import meshd

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(meshd, {}, "meshd", VARIABLE).source())
