"""What lets nodes run pods, as far as it can be seen without a k3s."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshd.config.schema import KubeVip
from meshd.errors import MeshdError
from simulations.lab import cgroups, kernel, pods
from simulations.lab.cgroups import Hierarchy, hierarchies

_V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 31 0:32 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
"""
_V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
_VIP_IMAGE = f"{KubeVip(address='').image}:{KubeVip(address='').version}"


def test_a_host_with_old_controllers_has_a_hierarchy_for_each_mount() -> None:
    assert hierarchies(_V1) == (
        Hierarchy(Path("/sys/fs/cgroup/cpu,cpuacct"), "cpu,cpuacct"),
        Hierarchy(Path("/sys/fs/cgroup/systemd"), "none,name=systemd"),
        Hierarchy(Path("/sys/fs/cgroup/memory"), "memory"),
    )


def test_a_host_with_the_unified_hierarchy_has_one() -> None:
    (only,) = hierarchies(_V2)
    assert only.is_v2
    assert only.top == Path("/sys/fs/cgroup")


def _hierarchies_of_each_kind() -> Iterator[tuple[Hierarchy, ...]]:
    """Yield what this host has, and any v2 hierarchy beside v1 ones."""
    yield cgroups.of_this_host()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        top = Path(line.split()[4])
        if " - cgroup2 " in line and top != Path("/sys/fs/cgroup"):
            yield (Hierarchy(top, ""),)


@pytest.mark.lab
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make control groups")
@pytest.mark.skipif(not cgroups.of_this_host(), reason="no cgroups are mounted at /sys/fs/cgroup")
@pytest.mark.parametrize("found", [*_hierarchies_of_each_kind()])
def test_a_process_in_a_group_sees_it_as_the_top_and_may_make_groups_below(
    found: tuple[Hierarchy, ...],
) -> None:
    group = f"meshd-test-{os.getpid()}"
    lent = _lent(found)

    def inside() -> object:
        cgroups.enter(group, found)
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET)
        kernel.mount("none", Path("/"), "", kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("sysfs", Path("/sys"), "sysfs")
        cgroups.mount_within(found)
        tops = [p for p in Path("/sys/fs/cgroup").iterdir() if p.is_dir() and not p.is_symlink()]
        for top in [Path("/sys/fs/cgroup")] if found[0].is_v2 else tops:
            (top / "kubepods").mkdir()
        return Path("/proc/self/cgroup").read_text().splitlines()

    try:
        seen = _in_a_child(inside)
        assert isinstance(seen, list)
        paths = {line.rpartition(":")[2] for line in seen}
        assert paths <= {"/", "/machine"} | {p for p in paths if p.startswith("/..")}
        assert paths & {"/", "/machine"}
        for hierarchy in found:
            assert (hierarchy.top / group / "kubepods").is_dir()
        assert cgroups.processes(group, found) == frozenset()
    finally:
        cgroups.remove(group, found)
        for one in found:
            for name in _lent(found) - lent:
                (one.top / "cgroup.subtree_control").write_text(f"-{name}")
    assert not any((hierarchy.top / group).exists() for hierarchy in found)


def _lent(found: tuple[Hierarchy, ...]) -> set[str]:
    files = [one.top / "cgroup.subtree_control" for one in found if one.is_v2]
    return {name for file in files for name in file.read_text().split()}


def _in_a_child(work: Callable[[], object]) -> object:
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(tell, json.dumps(work()).encode())
        except BaseException as error:  # noqa: BLE001 - The parent shows it.
            os.write(tell, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as file:
        said: object = json.load(file)
    os.waitpid(pid, 0)
    return said


def _archive(path: Path, *tags: str) -> None:
    content = json.dumps([{"Config": "c.json", "RepoTags": list(tags), "Layers": []}]).encode()
    member = tarfile.TarInfo("manifest.json")
    member.size = len(content)
    with tarfile.open(path, "w") as archive:
        archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host on which every program that pods need is installed; returns its k3s."""
    binaries, plugins = tmp_path / "bin", tmp_path / "plugins"
    for folder, names in ((binaries, pods.PROGRAMS), (plugins, pods.PLUGINS)):
        folder.mkdir()
        for name in names:
            (folder / name).symlink_to(sys.executable)
    monkeypatch.setattr(pods, "PATH", str(binaries))
    monkeypatch.setattr(pods, "PLUGIN_FOLDERS", (plugins,))
    (tmp_path / "images").mkdir()
    return tmp_path / "k3s"


def test_images_are_found_beside_the_binary(host: Path) -> None:
    images = host.parent / "images"
    _archive(images / "a.tar", "docker.io/rancher/mirrored-pause:3.6")
    _archive(images / "b.tar", _VIP_IMAGE)
    (images / "notes.txt").write_text("no archive")
    found = pods.find_runtime(host, None)
    assert found.images == str(images)
    assert found.pause == "docker.io/rancher/mirrored-pause:3.6"
    assert found.plugins == str(host.parent / "plugins")
    text = pods.containerd_config(found)
    assert 'sandbox_image = "docker.io/rancher/mirrored-pause:3.6"' in text
    assert f'bin_dir = "{host.parent}/plugins"' in text


def test_a_missing_image_is_named_with_what_was_found(host: Path) -> None:
    _archive(host.parent / "images" / "a.tar", "example.org/pause:1")
    with pytest.raises(MeshdError) as caught:
        pods.find_runtime(host, None)
    assert caught.value.code == "MESH-8020"
    said = caught.value.render()
    assert _VIP_IMAGE in said
    assert "a pause image" not in said
    assert "found there: example.org/pause:1" in said
    assert "--no-agents" in said


def test_a_folder_without_archives_is_said_to_have_none(host: Path, tmp_path: Path) -> None:
    with pytest.raises(MeshdError, match="a pause image") as caught:
        pods.find_runtime(host, tmp_path / "nowhere")
    assert "no image archive is there" in caught.value.render()


def test_missing_packages_are_named_in_a_line_for_apt(host: Path) -> None:
    for name in ("conntrack", "containerd-shim-runc-v2"):
        (host.parent / "bin" / name).unlink()
    (host.parent / "plugins" / "bridge").unlink()
    with pytest.raises(MeshdError) as caught:
        pods.find_runtime(host, None)
    assert caught.value.code == "MESH-8019"
    line = "apt-get install conntrack containerd containernetworking-plugins;"
    assert line in caught.value.render()


@pytest.mark.parametrize(("mask", "may"), [("000001ffffffffff", True), ("000001fffeffffff", False)])
def test_oom_scores_are_kept_where_the_host_withholds_the_right_to_lower_them(
    mask: str, *, may: bool
) -> None:
    assert pods.may_raise_limits(f"Name:\tx\nCapEff:\t{mask}\n") is may
