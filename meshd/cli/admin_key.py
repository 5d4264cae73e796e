"""`meshd admin-key`: keys of people who administer the cluster from any node."""

from __future__ import annotations

from pathlib import Path

import click

from meshd.errors import MeshdError


@click.group("admin-key")
def admin_key() -> None:
    """Make and read the keys of administrators.

    A public key goes into p2p.meshd.admins; its owner gets the kubeconfig on any node with
    `meshd kubeconfig --key FILE`. Keys of age-keygen do as well.
    """


@admin_key.command(short_help="Make a key: FILE gets the private half, stdout the public.")
@click.argument("file", type=click.Path(path_type=Path))
def new(file: Path) -> None:
    """Make a key: the private half goes to FILE, the public half to stdout."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from meshd.config import age
    from meshd.whole_file import write_whole

    key = X25519PrivateKey.generate()
    public = age.write_public_key(key)
    text = f"# public key: {public}\n{age.write_private_key(key)}\n"
    if file.exists() or file.is_symlink():
        # An old key may be all that somebody has.
        raise MeshdError(
            "MESH-7052", f"{file} exists, and may be a key", fix="name a file that does not exist"
        )
    try:
        write_whole(file, text.encode())
    except OSError as error:
        raise MeshdError(
            "MESH-7050",
            f"{file} cannot be written: {error.strerror}",
            fix="name a file in a folder where this user may write",
        ) from None
    click.echo(public)
    click.echo(
        f"the private key is in {file}: keep it to yourself. Put the line above into\n"
        "p2p.meshd.admins of every machine's file and restart meshd on the servers; then\n"
        f"`meshd kubeconfig --key {file}` works on every node.",
        err=True,
    )


@admin_key.command(short_help="Print the public halves of the keys in FILE.")
@click.argument("file")
def show(file: str) -> None:
    """Print the public keys that belong to the private ones in FILE (- is stdin)."""
    from meshd.cli.kubeconfig import private_keys
    from meshd.config import age

    for key in private_keys(file):
        click.echo(age.write_public_key(key))
