"""Run a program of the host and turn its failure into an error that a person can act on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from meshd.errors import MeshdError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Program: the Debian package that has it.
_PACKAGES = {"ip": "iproute2", "etcd": "etcd-server", "etcdctl": "etcd-client"}


def run(argv: Sequence[str], *, stdin: str = "") -> str:
    """Return what a program prints.

    Raises:
        MeshdError: it ended with another code than 0; the cause is its own message.
    """
    result = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise MeshdError(
            "MESH-8009",
            f"`{' '.join(argv)}` failed",
            cause=(result.stderr or result.stdout).strip() or f"exit code {result.returncode}",
            fix="the laboratory needs a Linux kernel with network namespaces, bridges and veth, "
            "and root; `meshd demo down` removes what was made",
        )
    return result.stdout


def require(program: str, *, purpose: str) -> None:
    """See that a program is installed.

    Raises:
        MeshdError: it is not; the fix names its package.
    """
    if shutil.which(program, path=PATH):
        return
    raise MeshdError(
        "MESH-8007" if program == "etcd" else "MESH-8008",
        f"{program} is not installed; the laboratory needs it for {purpose}",
        fix=f"apt-get install {_PACKAGES.get(program, program)}"
        + (", or name a real k3s with --k3s" if program == "etcd" else ""),
    )
