"""What a server hands out to administrators leaves it sealed, and is read again when it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ledger import NodeId
from meshd.cluster.handout import Handout
from meshd.cluster.paths import K3sPaths
from meshd.config import age
from meshd.config.schema import K3sArguments
from meshd.errors import MeshdError
from meshd.events import AdminAccess, ClusterOrder, Seal
from meshd.schema import ADMIN_DIGEST_BYTES, ADMIN_KUBECONFIG
from meshd.sealing import unseal
from tests.cluster.bench import SETTINGS, plan

KEY = X25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC = age.write_public_key(KEY)
ORDER = ClusterOrder(seat="server", plan=plan(), formed=True)


@pytest.fixture
def paths(tmp_path: Path) -> K3sPaths:
    return K3sPaths(config_dir=tmp_path, data_dir=tmp_path)


@pytest.fixture
def handout(paths: K3sPaths) -> Handout:
    return Handout(replace(SETTINGS, admins=(PUBLIC,)), paths)


def access(handout: Handout) -> AdminAccess:
    found = handout.access(ORDER, "ready")
    assert found is not None
    return found


def test_it_is_there_once_k3s_has_written_it_and_new_once_it_wrote_another(
    handout: Handout, paths: K3sPaths
) -> None:
    assert handout.access(ORDER, "ready") is None
    paths.kubeconfig.write_text("first")
    first = access(handout)
    assert first.admins == ((PUBLIC, KEY.public_key().public_bytes_raw()),)
    assert len(first.digest) == ADMIN_DIGEST_BYTES
    assert access(handout) == first
    paths.kubeconfig.write_text("another")
    assert access(handout).digest != first.digest
    paths.kubeconfig.unlink()
    assert handout.access(ORDER, "ready") is None


def test_nothing_is_handed_out_before_done_by_a_worker_or_before_k3s_is_ready(
    handout: Handout, paths: K3sPaths
) -> None:
    paths.kubeconfig.write_text("perhaps an abandoned cluster's")
    assert handout.access(ORDER, "ready") is not None
    assert handout.access(ORDER, "starting") is None
    assert handout.access(replace(ORDER, formed=False), "ready") is None
    assert handout.access(replace(ORDER, seat="worker"), "ready") is None


def test_without_admins_nothing_is_even_read(paths: K3sPaths) -> None:
    paths.kubeconfig.write_text("secret")
    assert Handout(SETTINGS, paths).access(ORDER, "ready") is None


def test_only_the_owner_of_the_key_can_open_what_leaves_it(
    handout: Handout, paths: K3sPaths
) -> None:
    paths.kubeconfig.write_text("secret")
    key = KEY.public_key().public_bytes_raw()
    request = Seal(recipient=NodeId(PUBLIC), sealing_key=key, name=ADMIN_KUBECONFIG)
    sealed = handout.seal(request)
    assert (sealed.recipient, sealed.name) == (PUBLIC, ADMIN_KUBECONFIG)
    assert sealed.value[:ADMIN_DIGEST_BYTES] == access(handout).digest
    assert b"secret" not in sealed.value
    ciphertext = sealed.value[ADMIN_DIGEST_BYTES:]
    opened = unseal(ciphertext, recipient=PUBLIC, sealing_key=KEY, name=ADMIN_KUBECONFIG)
    assert opened == "secret"
    for recipient, name in (("age1other", ADMIN_KUBECONFIG), (PUBLIC, "server-token")):
        with pytest.raises(ValueError, match="was not sealed to this key"):
            unseal(ciphertext, recipient=recipient, sealing_key=KEY, name=name)


def test_a_file_that_cannot_be_read_is_an_error_for_the_log(
    handout: Handout, paths: K3sPaths
) -> None:
    request = Seal(recipient=NodeId(PUBLIC), sealing_key=b"k" * 32, name=ADMIN_KUBECONFIG)
    for content in (None, b"\xff"):
        if content is not None:
            paths.kubeconfig.write_bytes(content)
        with pytest.raises(MeshdError) as caught:
            handout.seal(request)
        assert caught.value.code == "MESH-7040"


@pytest.mark.parametrize(
    "user",
    [
        K3sArguments(args=("--write-kubeconfig", "/root/kc")),
        K3sArguments(args=("--write-kubeconfig=/root/kc",)),
        K3sArguments(env=(("K3S_KUBECONFIG_OUTPUT", "/root/kc"),)),
    ],
)
def test_it_is_looked_for_where_the_user_let_k3s_write_it(
    paths: K3sPaths, user: K3sArguments
) -> None:
    assert Handout(replace(SETTINGS, k3s=user), paths).file == Path("/root/kc")
    assert Handout(SETTINGS, paths).file == paths.kubeconfig
