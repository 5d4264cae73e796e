from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meshd.cluster import kubevip
from meshd.cluster.k3s import Lease
from meshd.cluster.kubevip import API_DEAD_S, Guardian

ME, OTHER = "n1-aaaaaaaa", "n2-bbbbbbbb"


def guardian() -> Guardian:
    return Guardian(node_name=ME, lease_duration_s=5)


def test_the_holder_keeps_the_address() -> None:
    guard = guardian()
    for now in range(30):
        lease = Lease(holder=ME, renewed=str(now))
        assert guard.verdict(lease=lease, api_answers=True, now=now) is None
    assert guard.verdict(lease=None, api_answers=True, now=31) is None


def test_the_address_goes_once_another_has_held_the_lease_for_its_duration() -> None:
    guard = guardian()
    verdicts = [
        guard.verdict(lease=Lease(holder=OTHER, renewed=str(now)), api_answers=True, now=now)
        for now in range(7)
    ]
    assert verdicts[:5] == [None] * 5
    assert verdicts[5] == f"{OTHER} holds the Lease for 5 s"


def test_a_holder_that_does_not_renew_proves_nothing() -> None:
    guard = guardian()
    stale = Lease(holder=OTHER, renewed="once")
    verdicts = [guard.verdict(lease=stale, api_answers=True, now=now) for now in range(60)]
    assert set(verdicts) == {None}


def test_a_lease_that_came_back_to_us_starts_the_count_anew() -> None:
    guard = guardian()
    guard.verdict(lease=Lease(holder=OTHER, renewed="0"), api_answers=True, now=0)
    guard.verdict(lease=Lease(holder=ME, renewed="1"), api_answers=True, now=4)
    other = Lease(holder=OTHER, renewed="2")
    assert guard.verdict(lease=other, api_answers=True, now=6) is None


def test_the_address_goes_when_k3s_here_is_silent() -> None:
    guard = guardian()
    assert guard.verdict(lease=None, api_answers=False, now=10) is None
    assert guard.verdict(lease=None, api_answers=True, now=12) is None
    assert guard.verdict(lease=None, api_answers=False, now=13) is None
    assert guard.verdict(lease=None, api_answers=False, now=13 + API_DEAD_S - 0.1) is None
    why = guard.verdict(lease=None, api_answers=False, now=13 + API_DEAD_S)
    assert why == "k3s here is silent for 5 s"


def test_an_address_is_here_if_a_program_could_serve_it() -> None:
    assert kubevip.is_here("127.0.0.1")
    assert not kubevip.is_here("192.0.2.1")
    assert not kubevip.is_here("2001:db8::1")


@pytest.mark.parametrize(("number", "here"), [(errno.EAFNOSUPPORT, False), (errno.EMFILE, True)])
def test_a_kernel_without_ipv6_has_no_address_of_it(
    monkeypatch: pytest.MonkeyPatch, *, number: int, here: bool
) -> None:
    def refusing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("socket.socket", refusing)
    assert kubevip.is_here("2001:db8::1") == here


IN_A_NETWORK_OF_ITS_OWN = """
import sys
import trio
from meshd.cluster import kubevip

async def main():
    names = [i.ifname for i in await kubevip.interfaces()]
    assert names == ["lo"], names
    for vip, others in (("10.0.0.50", "10.0.0.50/24"), ("fd00::50", "fd00::50/64")):
        single = 128 if ":" in vip else 32
        assert not await kubevip.remove_address(vip)
        # Without the search for duplicates, during which nobody may bind to the address.
        at_once = ["nodad"] if ":" in vip else []
        await trio.run_process(["ip", "addr", "add", f"{vip}/{single}", "dev", "lo", *at_once])
        assert kubevip.is_here(vip)
        assert await kubevip.remove_address(vip)
        assert not await kubevip.remove_address(vip)
        # An address that an administrator gave the interface is not kube-vip's.
        await trio.run_process(["ip", "addr", "add", others, "dev", "lo"])
        assert not await kubevip.remove_address(vip)
    assert kubevip.stop_kube_vip() == 0
    process = await trio.lowlevel.open_process([sys.argv[1], "60"])
    with trio.fail_after(10):
        while kubevip.stop_kube_vip() != 1:  # Until the child has become it.
            await trio.sleep(0.01)
        assert await process.wait() == -15
    print("all seen")

trio.run(main)
"""


A_NODE_WITH_LEFT_OVER_ADDRESSES = """
import sys
from dataclasses import replace
from pathlib import Path
import trio
from meshd.cluster import kubevip
from tests.cluster.bench import N1, VIP, initialiser
from tests.cluster.test_keeper import IDLE, Bench

OTHER = "10.0.0.60"  # Not the plan's, though it may stand in this node's file.

async def main():
    kubevip.API_DEAD_S = 0.1
    for address in (VIP, OTHER):
        await trio.run_process(["ip", "addr", "add", f"{address}/32", "dev", "lo"])
    bench = Bench(Path(sys.argv[1]), N1)
    async with bench.running():
        bench.cluster.apply(initialiser())
        await bench.until(lambda: bench.host.launches)
        assert not kubevip.is_here(VIP), "left over from before k3s was started"
        bench.host.held = replace(IDLE, pid=1)
        await trio.run_process(["ip", "addr", "add", f"{VIP}/32", "dev", "lo"])
        await bench.until(lambda: not kubevip.is_here(VIP))
    assert kubevip.is_here(OTHER)
    print("all seen")

trio.run(main)
"""


def in_a_network_of_its_own(program: str, argument: Path) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    return subprocess.run(
        [*command, sys.executable, "-c", program, str(argument)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have a network of its own")
def test_the_address_that_is_guarded_is_the_plans(tmp_path: Path) -> None:
    done = in_a_network_of_its_own(A_NODE_WITH_LEFT_OVER_ADDRESSES, tmp_path)
    assert done.stdout.endswith("all seen\n"), done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have a network of its own")
def test_only_kube_vips_own_address_and_process_are_touched(tmp_path: Path) -> None:
    program = tmp_path / "kube-vip"
    shutil.copy("/usr/bin/sleep", program)
    done = in_a_network_of_its_own(IN_A_NETWORK_OF_ITS_OWN, program)
    assert done.stdout == "all seen\n", done.stderr
