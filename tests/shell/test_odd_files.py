"""Files and folders that are not as they should be: named, and never a start with half of them."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshd.cli.client import Client
from meshd.config import encode_token, new_token
from meshd.daemon import run_daemon

pytestmark = pytest.mark.usefixtures("undisturbed_logging")

TOKEN = encode_token(
    new_token(control_plane=3, nodes_max=None, seeds=(), random_bytes=random.Random(9).randbytes)
)
GOOD = f"""#cloud-config
p2p:
  network_token: {TOKEN}
  role: none
  meshd: {{listen: [/ip4/127.0.0.1/tcp/0], discovery: [seeds]}}
"""
WHOLE = GOOD.encode()


def run(tmp_path: Path, config: Path) -> int:
    """Run a daemon in this process, to its end."""
    return run_daemon(config=[config], state_dir=tmp_path / "state", run_dir=tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(WHOLE[:80], "MESH-1002]: {file}:3:18: the token is mistyped", id="half-token"),
        pytest.param(WHOLE[:-3], "MESH-1020]: {file}:", id="half-mapping"),
        pytest.param(bytes(range(256)), "MESH-1020]: {file}:2:1: not UTF-8", id="binary"),
        pytest.param(GOOD.encode("utf-16"), "MESH-1020]: {file}:1:1: not UTF-8", id="utf-16"),
        pytest.param(WHOLE + b"# Z\xfcrich\n", "MESH-1020]: {file}:6:", id="latin-1"),
        pytest.param(WHOLE + bytes(512), "MESH-1020]: {file}:", id="zeros-behind"),
        pytest.param(WHOLE.replace(b"p2p", b"p2\0p"), "MESH-1020]: {file}:", id="zero-byte"),
        pytest.param(b"#cloud-config\n\tp2p:\n", "MESH-1020]: {file}:2:1: a tab", id="tab"),
        pytest.param(
            b"#cloud-config\n- p2p\n", "MESH-1020]: {file}:2:1: a cloud-config", id="list"
        ),
    ],
)
def test_a_broken_file_ends_the_daemon_with_its_place_even_beside_a_good_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    folder = tmp_path / "oem"
    folder.mkdir()
    (folder / "00-good.yaml").write_text(GOOD)
    odd = folder / "10-odd.yaml"
    odd.write_bytes(content)
    assert run(tmp_path, folder) == 6
    said = capsys.readouterr().err
    assert f"error[{words.format(file=odd)}" in said
    assert "\n  fix: " in said
    assert TOKEN[8:] not in said
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "no line #cloud-config", id="empty"),
        pytest.param(b"\xef\xbb\xbf" + WHOLE, "a byte order mark", id="byte-order-mark"),
        pytest.param(WHOLE.replace(b"#cloud", b"# cloud"), "no line #cloud-config", id="header"),
        pytest.param(WHOLE + b"# " + b"x" * 1_000_000, "larger than 1 MB", id="too-large"),
    ],
)
def test_a_file_that_is_passed_over_is_named_when_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    folder = tmp_path / "oem"
    folder.mkdir()
    (folder / "10-odd.yaml").write_bytes(content)
    assert run(tmp_path, folder) == 6
    said = capsys.readouterr().err
    assert "error[MESH-1026]: no network token" in said
    assert f"{folder / '10-odd.yaml'}:1:1: skipped: " in said
    assert words in said


def test_a_file_that_is_not_there_and_a_folder_without_files_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, tmp_path / "none.yaml") == 6
    assert "error[MESH-1025]: " in capsys.readouterr().err
    (tmp_path / "folder.yaml").mkdir()
    assert run(tmp_path, tmp_path / "folder.yaml") == 6
    assert "error[MESH-1026]: no network token" in capsys.readouterr().err


@contextmanager
def running(folder: Path, config: Path) -> Iterator[Client]:
    """A daemon on the loopback interface that runs no k3s; gives its local API."""
    command = [sys.executable, "-m", "meshd.cli", "daemon", "--config", str(config)]
    command += ["--state-dir", str(folder / "state"), "--run-dir", str(folder / "new/run")]
    environment = dict(os.environ) | {"MESHD_FINGERPRINT": "odd-files"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stderr=pipe, text=True) as daemon:
        assert daemon.stderr is not None
        try:
            for line in daemon.stderr:
                if '"listening"' in line or "event=listening" in line:
                    break
            yield Client(folder / "new/run")
        finally:
            daemon.terminate()
            daemon.stderr.read()


def test_a_daemon_starts_with_its_good_files_and_status_names_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "oem"
    folder.mkdir()
    (folder / "00-good.yaml").write_bytes(WHOLE.replace(b"\n", b"\r\n"))
    odd = {
        "10-empty.yaml": b"",
        "20-bom.yaml": b"\xef\xbb\xbf" + WHOLE,
        "30-large.yaml": WHOLE + b"# " + b"x" * 1_000_000,
    }
    for name, content in odd.items():
        (folder / name).write_bytes(content)
    (folder / "40-notes.txt").write_bytes(bytes(range(256)))  # Not of these.
    (folder / "50-folder.yaml").mkdir()
    (tmp_path / "state").mkdir()
    with running(tmp_path, folder) as client:
        status = client.get("/v1/status")
    items = [item["message"] for item in status["health"] if item["code"] == "MESH-1025"]
    assert sorted(message.partition(": ")[0] for message in items) == [
        f"{folder / name}:1" for name in sorted(odd)
    ]
    assert all(": skipped: " in message for message in items)


def lock(state: Path) -> None:
    state.mkdir()
    held = os.open(state / "lock", os.O_RDWR | os.O_CREAT)  # Until this process ends.
    os.write(held, b"4711\n")
    fcntl.flock(held, fcntl.LOCK_EX)


def key_of(content: bytes | None) -> Callable[[Path], None]:
    def make(state: Path) -> None:
        state.mkdir()
        if content is None:
            (state / "identity.key").mkdir()
        else:
            (state / "identity.key").write_bytes(content)

    return make


@pytest.mark.parametrize(
    ("prepare", "code", "words"),
    [
        pytest.param(lock, "MESH-2002", "process 4711", id="locked"),
        pytest.param(lambda s: s.write_text("file"), "MESH-2001", "cannot be written", id="file"),
        pytest.param(key_of(None), "MESH-2010", "identity.key cannot be read", id="key-folder"),
        pytest.param(key_of(b"short"), "MESH-2011", "holds 5 bytes", id="key-short"),
        pytest.param(
            key_of(bytes(32)), "MESH-2008", "is missing, but identity.key", id="key-alone"
        ),
    ],
)
def test_a_state_directory_that_is_not_ours_to_use_ends_the_daemon(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Path], None],
    code: str,
    words: str,
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(GOOD)
    prepare(tmp_path / "state")
    assert run(tmp_path, config) == 1
    said = capsys.readouterr().err
    assert f"error[{code}]: " in said
    assert words in said
    assert "\n  fix: " in said


def test_a_run_directory_that_cannot_be_made_ends_the_daemon_before_it_speaks_to_anyone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(GOOD)
    (tmp_path / "run").write_text("a file")
    assert run(tmp_path, config) == 1
    said = capsys.readouterr().err
    assert "error[MESH-7001]: " in said
    assert "--run-dir" in said
