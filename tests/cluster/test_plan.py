from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from ledger import NodeId
from meshd.cluster.manifests import cluster_mark, kube_vip_daemon_set, kube_vip_static_pod
from meshd.cluster.paths import K3sPaths
from meshd.cluster.plan import Launch, Machine, conflict, drop_in, joining_token, launch, origin
from meshd.config.schema import K3sArguments, KubeVip, Settings
from meshd.events import ClusterOrder
from roles import ClusterPlan
from tests.cluster.bench import (
    ADDRESSES,
    N1,
    N2,
    N4,
    NAMES,
    SETTINGS,
    VIP,
    initialiser,
    plan,
    server,
    with_arguments,
    worker,
)

GOLDEN = Path(__file__).parent / "golden"
REWRITE = False  # Set it, run, and read the difference.


def machine(node: NodeId) -> Machine:
    return Machine(
        node_name=NAMES[node],
        node_ip=ADDRESSES[node],
        flannel_interface="eth7",
        binary=Path("/usr/local/bin/k3s"),
        paths=K3sPaths(),
        token_file=Path("/var/lib/meshd/cluster/token"),
        agent_token_file=Path("/var/lib/meshd/cluster/agent-token"),
        environment={"PATH": "/usr/bin", "K3S_TOKEN": "x", "MESHD_TOKEN_FILE": "y"},
    )


def launched(order: ClusterOrder, settings: Settings = SETTINGS, *, begun: bool = False) -> Launch:
    node = {"initialiser": N1, "server": N2}.get(order.seat, N4)
    return launch(order, settings, machine(node), begun=begun)


KUBE_VIP = KubeVip(address=VIP)
GOLDEN_FILES = {
    "initialiser.yaml": drop_in(initialiser(), SETTINGS, machine(N1)),
    "initialiser-formed.yaml": drop_in(initialiser(formed=True), SETTINGS, machine(N1)),
    "server.yaml": drop_in(server(), SETTINGS, machine(N2)),
    "worker.yaml": drop_in(worker(), replace(SETTINGS, labels=(("site", "north"),)), machine(N4)),
    "kube-vip-daemon-set.yaml": kube_vip_daemon_set(KUBE_VIP, "eth0"),
    "kube-vip-static-pod.yaml": kube_vip_static_pod(KUBE_VIP, "eth0", "/etc/rancher/k3s/k3s.yaml"),
    "cluster-mark.yaml": cluster_mark(plan()),
}


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_what_k3s_is_given_is_what_was_read_and_agreed_to(name: str) -> None:
    content = GOLDEN_FILES[name]
    if REWRITE:
        (GOLDEN / name).write_bytes(content)
    assert content.decode() == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "order", [initialiser(), initialiser(formed=True), server(), server(formed=True), worker()]
)
def test_a_drop_in_says_one_of_cluster_init_and_server_and_no_secret(order: ClusterOrder) -> None:
    says = yaml.safe_load(drop_in(order, SETTINGS, machine(N2)))
    assert ("cluster-init" in says) != ("server" in says)
    assert ("cluster-init" in says) == (order.seat == "initialiser" and not order.formed)
    assert "token" not in says
    assert "agent-token" not in says


def test_nobody_is_told_to_join_itself_or_the_vip() -> None:
    order = replace(server(), join=(VIP, ADDRESSES[N2], ADDRESSES[N1]))
    assert origin(order, ADDRESSES[N2]) == {"server": f"https://{ADDRESSES[N1]}:6443"}


def ipv6_plan() -> ClusterPlan:
    seats = tuple(
        replace(seat, node_ip=f"fd00::1{number}") for number, seat in enumerate(plan().seats)
    )
    return replace(plan(), seats=seats)


def test_servers_with_ipv6_addresses_get_ipv6_ranges_that_all_of_them_share() -> None:
    says = [
        yaml.safe_load(drop_in(replace(order, plan=ipv6_plan()), SETTINGS, machine(node)))
        for order, node in ((initialiser(), N1), (server(), N2), (server(formed=True), N2))
    ]
    pods = ip_network(says[0]["cluster-cidr"])
    services = ip_network(says[0]["service-cidr"])
    assert (pods.version, pods.prefixlen, services.prefixlen) == (6, 56, 112)
    assert pods.is_private
    assert not pods.overlaps(services)
    assert says[0]["flannel-ipv6-masq"] is True
    for key in ("cluster-cidr", "service-cidr", "flannel-ipv6-masq"):
        assert len({says_one[key] for says_one in says}) == 1
    other = replace(ipv6_plan(), cluster_id="d2" * 16)
    content = yaml.safe_load(drop_in(replace(server(), plan=other), SETTINGS, machine(N2)))
    assert content["cluster-cidr"] != says[0]["cluster-cidr"]


def test_ranges_are_left_to_k3s_to_workers_and_to_who_names_them() -> None:
    named = with_arguments("--service-cidr=fd01::/112")
    order = replace(server(), plan=ipv6_plan())
    for content in (
        drop_in(server(), SETTINGS, machine(N2)),
        drop_in(replace(worker(), plan=ipv6_plan()), SETTINGS, machine(N4)),
        drop_in(order, named, machine(N2)),
        drop_in(order, SETTINGS, machine(N2), given={"cluster-cidr", "debug"}),
    ):
        assert not {"cluster-cidr", "service-cidr"} & set(yaml.safe_load(content))


def test_an_ipv6_address_stands_in_brackets() -> None:
    order = replace(worker(), join=("fd00::11",))
    assert origin(order, "fd00::14") == {"server": "https://[fd00::11]:6443"}


def test_the_only_server_needs_its_database_once_it_had_one() -> None:
    alone = ClusterOrder(seat="initialiser", plan=plan(seats=(N1,)), formed=True)
    wal = K3sPaths().etcd_log
    assert origin(alone, ADDRESSES[N1]) == {"cluster-init": True}
    assert launched(alone).needs == (wal,)
    assert launched(initialiser(), begun=True).needs == (wal,)
    assert launched(initialiser()).needs == ()
    assert launched(initialiser()).keeps == (wal,)
    # With others to join, a lost database means joining them.
    assert launched(initialiser(formed=True), begun=True).needs == ()
    assert launched(initialiser(formed=True), begun=True).keeps == ()
    assert launched(server()).keeps == ()


def test_the_users_arguments_and_environment_reach_k3s_as_written() -> None:
    arguments = K3sArguments(args=("--disable", "traefik"), env=(("HTTPS_PROXY", "http://p"),))
    run = launched(initialiser(), replace(SETTINGS, k3s=arguments))
    assert run.argv == ("/usr/local/bin/k3s", "server", "--disable", "traefik")
    assert dict(run.environment) == {"PATH": "/usr/bin", "HTTPS_PROXY": "http://p"}
    assert launched(worker(), replace(SETTINGS, k3s=arguments)).argv[1:] == ("agent",)


def test_the_vip_stays_in_the_certificate_beside_the_users_names() -> None:
    run = launched(initialiser(), with_arguments("--tls-san=me.example"))
    assert run.argv[2:] == ("--tls-san=me.example", "--tls-san", VIP)


def test_a_server_that_was_a_worker_is_another_incarnation() -> None:
    assert launched(server()).incarnation != launched(worker()).incarnation
    assert launched(server()).incarnation == launched(server(formed=True)).incarnation


@pytest.mark.parametrize(
    ("arguments", "variable", "key", "named"),
    [
        (("--cluster-init",), "", "", "--cluster-init"),
        (("--server=https://x:6443",), "", "", "--server"),
        (("-t", "x"), "", "", "--token"),
        (("--data-dir", "/x"), "", "", "--data-dir"),
        ((), "K3S_TOKEN", "", "K3S_TOKEN"),
        ((), "K3S_URL", "", "K3S_URL"),
        ((), "", "node-ip", "node-ip"),
        ((), "", "token+", "token+"),
        ((), "", "s", "s"),
    ],
)
def test_what_decides_membership_is_refused_from_anybody_else(
    arguments: tuple[str, ...], variable: str, key: str, named: str
) -> None:
    users = K3sArguments(args=arguments, env=((variable, "x"),) if variable else ())
    reason = conflict(users, [("/etc/rancher/k3s/config.yaml", [key] if key else [])])
    assert reason is not None
    assert named in reason


def test_ordinary_settings_of_the_user_are_no_conflict() -> None:
    users = K3sArguments(args=("--disable", "server", "--kubelet-arg=x"), env=(("A", "b"),))
    assert conflict(users, [("config.yaml", ["tls-san", "node-label+"])]) is None


def test_a_full_token_names_the_authority() -> None:
    token = joining_token(ca_hash="ab" * 32, user="node", password="5e" * 32)
    assert token == f"K10{'ab' * 32}::node:{'5e' * 32}"


def test_replaced_arguments_leave_out_what_is_only_suggested() -> None:
    kept = yaml.safe_load(drop_in(server(), SETTINGS, machine(N2)))
    settings = replace(SETTINGS, k3s=K3sArguments(replace_args=True))
    left = yaml.safe_load(drop_in(server(), settings, machine(N2)))
    assert kept == left | {"flannel-iface": "eth7"}
    # A worker has arguments of its own.
    assert b"flannel-iface" in drop_in(worker(), settings, machine(N4))


def test_kube_vip_can_be_told_to_find_its_interface_itself() -> None:
    text = kube_vip_daemon_set(KubeVip(address="fd00::50"), None).decode()
    assert "vip_interface" not in text
    assert "'128'" in text


def variables_of(settings: KubeVip) -> dict[str, str]:
    """Return the variables of the container in a DaemonSet."""
    (daemon_set,) = [
        one
        for one in yaml.safe_load_all(kube_vip_daemon_set(settings, "eth0"))
        if one["kind"] == "DaemonSet"
    ]
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value", "") for one in container["env"]}


def test_users_settings_of_kube_vip_are_added_and_change_nothing_that_meshd_decides() -> None:
    plain = variables_of(KUBE_VIP)
    asked = {"vip_loglevel": "5", "svc_enable": "true", "vip_leasename": "x", "address": "10.0.0.9"}
    given = variables_of(replace(KUBE_VIP, variables=tuple(asked.items())))
    assert given == plain | {"vip_loglevel": "5", "svc_enable": "true"}


def test_a_balancer_that_masquerades_is_privileged() -> None:
    asked = replace(KUBE_VIP, variables=(("lb_enable", "true"), ("lb_fwdmethod", "masquerade")))
    assert b"privileged: true" in kube_vip_daemon_set(asked, "eth0")
    assert b"privileged" not in kube_vip_daemon_set(replace(KUBE_VIP, variables=()), "eth0")
