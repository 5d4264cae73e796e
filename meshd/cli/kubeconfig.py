"""`meshd kubeconfig`: who may administer the cluster gets what kubectl needs for it.

Invariant: a file that exists is replaced whole or not at all, and only after what was in it is safe
beside it.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshd.cli import kubefile
from meshd.cli.client import Client
from meshd.cli.output import run_dir_option
from meshd.errors import MeshdError, NotPermitted, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from meshd.cli.client import Json

KUBERNETES_PORT = 6443
BACKUP = ".before-meshd"
"""Ends the name of the copy of a file that was changed."""


@click.command()
@click.argument("path", required=False)
@click.option("--merge", is_flag=True, help="Add it to PATH, $KUBECONFIG or ~/.kube/config.")
@click.option("--set-current", is_flag=True, help="With --merge: make it the current context.")
@click.option("--force", is_flag=True, help="Replace what is in the way; a copy is kept.")
@click.option(
    "--key",
    "key_file",
    metavar="FILE",
    help="Private key of one of p2p.meshd.admins, for nodes that are no server; - reads stdin.",
)
@run_dir_option
def kubeconfig(
    path: str | None,
    key_file: str | None,
    run_dir: Path,
    *,
    merge: bool,
    set_current: bool,
    force: bool,
) -> None:
    """Give out an administrator's kubeconfig, on PATH or on stdout (-, or no PATH).

    On a control-plane node it is for root. On other nodes it is for the owner of a key that is
    among p2p.meshd.admins.
    """
    if merge and path == "-":
        raise UsageError(
            "MESH-7055", "--merge needs a file, not -", fix="name the file, or leave PATH out"
        )
    if set_current and not merge:
        raise UsageError(
            "MESH-7055",
            "--set-current is for --merge: a kubeconfig of its own has one context",
            fix="add --merge, or leave --set-current out",
        )
    client = Client(run_dir)
    status = client.get("/v1/status")
    _refuse_provisional(status)
    text = _with_key(client, key_file, status) if key_file else _of_server(client, status)
    server, others = _servers(status)
    try:
        name = f"meshd-{status['network']['id']}"
        access = kubefile.read_access(text, name=name, server=server)
    except kubefile.Unreadable as error:
        raise MeshdError(
            "MESH-7047",
            f"what k3s wrote for its administrator is no kubeconfig: {error}",
            fix="restart k3s on that server: it writes it again",
        ) from None
    if merge:
        file = Path(path) if path else _own_file(os.environ)
        _merge(file, access, set_current=set_current, force=force)
    elif path is None or path == "-":
        click.echo(kubefile.fresh(access, others), nl=False)
    else:
        _write(Path(path), access, others, force=force)


def _refuse_provisional(status: Json) -> None:
    phase = status["genesis"]["phase"]
    if phase != "formed":
        waiting = status["node"]["waiting_for"]
        raise MeshdError(
            "MESH-7041",
            f"there is no cluster to administer yet: genesis is {phase}",
            cause="until it has formed for good a cluster is provisional and may still be given up"
            + (f"; here: {waiting}" if waiting else ""),
            fix="`meshd wait --for formed`, then again",
        )


def _of_server(client: Client, status: Json) -> str:
    """Return the kubeconfig that k3s wrote on this server."""
    file = client.get("/v1/kubeconfig")["file"]
    if file is None:
        own = status["node"]
        raise NotPermitted(
            "MESH-7042",
            f"{own['name']} is {_described(own['role'])}: it has no kubeconfig to give",
            fix=f"run it as root on a server ({_names(status)}), or add --key FILE with the "
            "private key of one of p2p.meshd.admins",
        )
    try:
        return Path(file).read_text(encoding="utf-8")
    except PermissionError:
        raise NotPermitted(
            "MESH-7046",
            f"this user may not read {file}",
            fix="run it as root, or add --key FILE with the private key of one of p2p.meshd.admins",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise MeshdError(
            "MESH-7047",
            f"{file} cannot be read: {why}",
            fix="k3s writes it when it starts: see `meshd status`",
        ) from None


def _with_key(client: Client, key_file: str, status: Json) -> str:
    """Return the newest copy in the ledger that the key opens."""
    from meshd.config import age
    from meshd.schema import ADMIN_KUBECONFIG
    from meshd.sealing import unseal

    keys = {age.write_public_key(key): key for key in private_keys(key_file)}
    sealed = client.get("/v1/kubeconfig", recipients=",".join(keys))["sealed"]
    if not sealed:
        raise NotPermitted(
            "MESH-7045",
            f"the ledger holds no kubeconfig for {' or '.join(keys)}",
            cause="that key is not among p2p.meshd.admins of the servers, or none of them has "
            "written its copy yet",
            fix="add it to p2p.meshd.admins in the file of every machine and restart meshd on the "
            f"servers ({_names(status)})",
        )
    for copy in sorted(sealed, key=lambda one: one["stamp_ms"], reverse=True):
        recipient = copy["recipient"]
        try:
            return unseal(
                base64.b64decode(copy["value"]),
                recipient=recipient,
                sealing_key=keys[recipient],
                name=ADMIN_KUBECONFIG,
            )
        except ValueError:
            continue
    raise MeshdError(
        "MESH-7053",
        "no copy of the kubeconfig in the ledger opens with this key",
        cause=f"written by {', '.join(sorted({one['author'] for one in sealed}))}",
        fix="run the same version of meshd here and on the servers",
    )


def private_keys(key_file: str) -> list[X25519PrivateKey]:
    """Return the private keys in a file, or on stdin if it is `-`.

    Raises:
        UsageError: the key itself stands on the command line.
        MeshdError: the file holds none.
    """
    from meshd.config import age

    if age.looks_private(key_file):
        raise UsageError(
            "MESH-7017",
            "a private key does not belong on the command line, where everybody can read it",
            fix="give the file that holds it; and make a new key, this one is known now",
        )
    try:
        text = sys.stdin.read() if key_file == "-" else Path(key_file).read_text(encoding="utf-8")
        return age.read_private_keys(text)
    except (OSError, ValueError) as error:
        # UnicodeDecodeError is a ValueError, and shows bytes of the file.
        if isinstance(error, OSError):
            why = f"cannot be read: {error.strerror}"
        else:
            why = "is not text" if isinstance(error, UnicodeDecodeError) else f"is no key: {error}"
        raise MeshdError(
            "MESH-7043",
            f"{'stdin' if key_file == '-' else key_file} {why}",
            fix="name a file of `meshd admin-key new` or `age-keygen`, with a line "
            "AGE-SECRET-KEY-1…",
        ) from None


def _servers(status: Json) -> tuple[str, list[str]]:
    """Return the URL to use and those of the other servers, the VIP's first while it is held."""
    addresses = [str(one) for one in status["cluster"]["servers"]]
    if not addresses:
        seats = [node for node in status["nodes"] if node["role"] == "control-plane"]
        seats.sort(key=lambda node: node["path"] != "self")
        addresses = [str(node["node_ip"]) for node in seats if node["node_ip"]]
    urls = [_url(address) for address in addresses]
    endpoint = status["cluster"]["endpoint"]
    if endpoint is None:
        if not urls:
            raise MeshdError(
                "MESH-7054",
                "this node knows the address of no server",
                fix="`meshd wait --for joined`, then again",
            )
        _hint(f"no server answers now: {urls[0]} is written, see `meshd status`")
        endpoint = urls[0]
    return str(endpoint), [url for url in urls if url != endpoint]


def _url(address: str) -> str:
    return f"https://{f'[{address}]' if ':' in address else address}:{KUBERNETES_PORT}"


def _own_file(environment: Mapping[str, str]) -> Path:
    """Return the first file of $KUBECONFIG, else ~/.kube/config, as kubectl writes it."""
    first = next((one for one in environment.get("KUBECONFIG", "").split(":") if one), None)
    return Path(first) if first is not None else Path("~/.kube/config").expanduser()


def _merge(
    path: Path,
    access: kubefile.Access,
    *,
    set_current: bool,
    force: bool,
) -> None:
    file, held = _held(path)
    try:
        new = kubefile.merged(held or "", access, force=force, set_current=set_current)
    except kubefile.Unreadable as error:
        raise _malformed(path, error) from None
    except kubefile.Taken as error:
        raise MeshdError(
            "MESH-7049",
            f"{path} is left as it is: {error}",
            fix="take that entry out, name another file, or add --force to replace it",
        ) from None
    kept = _replace(file, held, new, makes_folder=True)  # As kubectl does.
    current = kubefile.current_context(new)
    _hint(f"{path} has the context {access.name}, server {access.server}{kept}")
    other = "" if current == access.name else f" --context {access.name}"
    _hint(f"next: kubectl{_option(path)}{other} get nodes")


def _write(path: Path, access: kubefile.Access, others: list[str], *, force: bool) -> None:
    file, held = _held(path)
    try:
        ours = force or held is None or kubefile.is_only(held, access)
    except kubefile.Unreadable as error:
        raise _malformed(path, error) from None
    if not ours:
        raise MeshdError(
            "MESH-7051",
            f"{path} holds other entries, which would be lost",
            fix="add --merge to add to it, or --force to replace it",
        )
    kept = _replace(file, held, kubefile.fresh(access, others), makes_folder=False)
    _hint(f"{path} has the context {access.name}, server {access.server}{kept}")
    _hint(f"next: kubectl --kubeconfig {path} get nodes")


def _held(path: Path) -> tuple[Path, str | None]:
    """Return the file itself, past links, and its text; None if there is none."""
    try:
        file = path.resolve()
        return file, file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return path.resolve(), None
    except UnicodeDecodeError:
        raise _malformed(path, kubefile.Unreadable("it is not text")) from None
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, until 3.13.
        raise _refused(path, error) from None


def _replace(file: Path, held: str | None, new: str, *, makes_folder: bool) -> str:
    """Write the file whole; return what to say about the copy of what was there."""
    from meshd.whole_file import make_folder, write_whole

    try:
        if held is None:
            if makes_folder:
                make_folder(file.parent, mode=0o700)
            write_whole(file, new.encode())
            return ""
        found = file.stat()
        owner = (found.st_uid, found.st_gid)
        if held == new:
            write_whole(file, new.encode(), owner=owner)  # Its mode, if it was readable by others.
            return " already"
        backup = file.with_name(file.name + BACKUP)
        write_whole(backup, held.encode(), owner=owner)
        write_whole(file, new.encode(), owner=owner)
    except OSError as error:
        raise _refused(file, error) from None
    return f" (what was there before: {backup})"


def _refused(path: Path, error: OSError | RuntimeError) -> MeshdError:
    why = error.strerror if isinstance(error, OSError) else "its links go in a circle"
    return MeshdError(
        "MESH-7050",
        f"{path} cannot be written: {why}; nothing was changed",
        fix="name a file in a folder where this user may write, or use - for stdout",
    )


def _malformed(path: Path, error: kubefile.Unreadable) -> MeshdError:
    return MeshdError(
        "MESH-7048",
        f"{path} is no kubeconfig, and is left as it is: {error}",
        fix="correct it, or name another file",
    )


def _names(status: Json) -> str:
    seats = (node["name"] for node in status["nodes"] if node["role"] == "control-plane")
    return ", ".join(sorted(map(str, seats))) or "none is known here"


def _described(role: str | None) -> str:
    return {"worker": "a worker", "none": "a node without a role"}.get(role or "", "undecided yet")


def _option(path: Path) -> str:
    return "" if path == _own_file(os.environ) else f" --kubeconfig {path}"


def _hint(text: str) -> None:
    click.echo(text, err=True)
