"""The `meshd` command. One small module per verb group, imported only when its verb is used.

`meshd status` runs often and on small machines, so nothing here imports the daemon's parts.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from meshd.errors import MeshdError, UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""

# verb: (module below meshd.cli, name of its click command, one line of help).
VERBS = {
    "admin-key": ("admin_key", "admin_key", "Make keys of administrators."),
    "bootstrap": ("bootstrap", "bootstrap", "See how the cluster is started."),
    "completion": ("completion", "completion", "Print a script that completes words in a shell."),
    "config": ("config", "config", "Check and show the configuration."),
    "daemon": ("daemon", "daemon", "Run the daemon in the foreground."),
    "demo": ("demo", "demo", "Run real daemons in a laboratory on this machine."),
    "events": ("events", "events", "Show what happened, with causes."),
    "explain": ("explain", "explain", "Say why: roles, genesis, error codes."),
    "k3s-gate": ("k3s_gate", "k3s_gate", "Say whether k3s may start on this node now."),
    "kubeconfig": ("kubeconfig", "kubeconfig", "Give out an administrator's kubeconfig."),
    "ledger": ("ledger", "ledger", "Read the replicated ledger."),
    "status": ("status", "status", "Show the cluster as this node sees it."),
    "token": ("token", "token", "Make and inspect tokens."),
    "version": ("version", "version", "Show the version."),
    "wait": ("wait", "wait", "Wait until something is so."),
}


class Verbs(click.Group):
    """Knows every verb, and loads the one that is used. (ARG002: click's signatures.)"""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module, name, _ = VERBS[cmd_name]
        command = getattr(importlib.import_module(f"meshd.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the verbs from the table: loading each one for a TAB would be slow."""
        from click.shell_completion import CompletionItem

        verbs = [verb for verb in sorted(VERBS) if verb.startswith(incomplete)]
        found = [CompletionItem(verb, help=VERBS[verb][2]) for verb in verbs]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(verb, VERBS[verb][2]) for verb in sorted(VERBS)])


@click.command(
    cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True
)
def meshd() -> None:
    """Identical machines with one cloud-config turn themselves into a k3s cluster.

    Exit codes: 0 fine, 1 failed or unhealthy, 2 usage, 3 daemon not reachable, 4 not permitted,
    5 timed out, 6 bad configuration.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; errors are shown on stderr."""
    try:
        code = meshd.main(args=argv, prog_name="meshd", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.ctx.get_help(), file=sys.stderr)
        return UsageError.exit_code
    except click.UsageError as error:
        return _show(_usage_error(error))
    except MeshdError as error:
        return _show(error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _show(error: MeshdError) -> int:
    print(error.render(), file=sys.stderr)
    return error.exit_code


def _usage_error(error: click.UsageError) -> UsageError:
    path = error.ctx.command_path if error.ctx is not None else "meshd"
    return UsageError("MESH-7010", error.format_message(), fix=f"see `{path} --help`")
