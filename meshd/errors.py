"""Failures an operator can act on, each with a stable code. Anything else is a bug: traceback.

Codes: 1xxx configuration and token, 2xxx state and identity, 3xxx mesh, 4xxx genesis, 5xxx k3s,
6xxx VIP, 7xxx command line and local API, 8xxx laboratory. A code is never reused. What each
means stands in errors.toml beside this module.
"""

from __future__ import annotations


class MeshdError(Exception):
    """What could not be done, why, and what would help; no traceback is shown.

    Args:
        code: stable, such as `MESH-1001`.
        what: one sentence: what is wrong, where, and the value found.
        cause: why, if that is not said by `what`.
        fix: what the operator can do.
    """

    exit_code = 1

    def __init__(self, code: str, what: str, *, cause: str | None = None, fix: str) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.cause = cause
        self.fix = fix

    def render(self) -> str:
        """Return the lines shown on stderr."""
        lines = [f"error[{self.code}]: {self.what}"]
        if self.cause is not None:
            lines.append(f"  cause: {self.cause}")
        lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class UsageError(MeshdError):
    """The command line itself is wrong."""

    exit_code = 2


class DaemonUnreachable(MeshdError):
    """No daemon answers on the local socket."""

    exit_code = 3


class NotPermitted(MeshdError):
    """This node or user may not do that; the fix names who may."""

    exit_code = 4


class TimedOut(MeshdError):
    """A wait ended before what it waited for; `what` says what is still missing."""

    exit_code = 5


class ConfigError(MeshdError):
    """A configuration file or token is wrong."""

    exit_code = 6
