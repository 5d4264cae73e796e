"""Kairos' documented p2p examples mean here what they mean there.

The files in `kairos/` have the keys and the structure of the examples (kairos.io: "P2P support",
"Configuration reference", and the examples single node, multi node, HA, HA with KubeVIP, netboot,
bandwidth-optimized upgrades), in our own words. What each means is taken from
kairos-io/provider-kairos, internal/provider/config/config.go and internal/role.
"""

from pathlib import Path

import pytest

from meshd.config import KubeVip, Settings
from meshd.config.load import Configuration
from tests.config.loading import Load

EXAMPLES = Path(__file__).parent / "kairos"

SINGLE_MASTER = [
    *("single-master", "single-master-lan-only", "single-node", "elastic-ip", "dns", "netboot"),
    "embedded-registry",
]
HA = ["ha", "ha-kubevip", "everything", "k3s-arguments"]


def examined(load: Load, name: str) -> Configuration:
    return load.examine((EXAMPLES / f"{name}.yaml").read_text())


def settings(load: Load, name: str) -> Settings:
    """Settings of an example as it stands."""
    return load((EXAMPLES / f"{name}.yaml").read_text())


def codes(found: Configuration) -> set[str]:
    return {item.code for item in (*found.errors, *found.findings)}


def test_every_example_is_tested() -> None:
    assert sorted(path.stem for path in EXAMPLES.iterdir()) == sorted(
        [*SINGLE_MASTER, *HA, "ha-kubevip-misplaced", "reference"]
    )


@pytest.mark.parametrize("name", SINGLE_MASTER)
def test_without_ha_one_machine_is_the_control_plane(load: Load, name: str) -> None:
    assert not examined(load, name).errors
    # Two machines must agree: one alone cannot know that it is not one of many.
    bounds = settings(load, name).bounds
    assert (bounds.bound, bounds.control_plane) == ("open", 1)
    assert bounds.quorum >= 2


@pytest.mark.parametrize("name", HA)
def test_master_nodes_counts_those_besides_the_first(load: Load, name: str) -> None:
    assert settings(load, name).bounds.control_plane == 3


@pytest.mark.parametrize(
    ("name", "discovery"),
    [
        ("single-master", ("lan", "seeds", "dht")),
        ("dns", ("lan", "seeds", "dht")),
        ("single-master-lan-only", ("lan", "seeds")),
        ("ha", ("lan", "seeds")),
        ("netboot", ("lan", "seeds")),
    ],
)
def test_the_dht_is_on_unless_it_is_disabled(
    load: Load, name: str, discovery: tuple[str, ...]
) -> None:
    assert settings(load, name).discovery == discovery


@pytest.mark.parametrize(
    ("name", "vip"),
    [
        ("ha", None),
        ("ha-kubevip", KubeVip(address="192.168.1.110")),
        ("elastic-ip", KubeVip(address="192.168.1.110", interface="ens18")),
        ("everything", KubeVip(address="192.168.1.110", interface="ens18")),
    ],
)
def test_an_elastic_ip_is_the_virtual_address(load: Load, name: str, vip: KubeVip | None) -> None:
    assert settings(load, name).kubevip == vip


@pytest.mark.parametrize(
    ("name", "asked"), [("single-master", True), ("ha", True), ("ha-kubevip", False)]
)
def test_the_overlay_is_asked_for_unless_the_vpn_is_off(
    load: Load,
    name: str,
    asked: bool,  # noqa: FBT001 - A column of the table.
) -> None:
    assert settings(load, name).overlay_asked is asked
    assert ("MESH-1031" in {item.code for item in settings(load, name).findings}) is asked


@pytest.mark.parametrize(
    ("name", "role"),
    [("single-node", "control-plane"), ("single-master", "auto"), ("everything", "auto")],
)
def test_a_role_may_be_fixed_or_left_to_the_machines(load: Load, name: str, role: str) -> None:
    assert settings(load, name).role == role


def test_k3s_arguments_reach_servers_and_agents(load: Load) -> None:
    found = settings(load, "k3s-arguments")
    assert found.k3s.args == ("--disable=traefik,servicelb", "--node-label", "place=cellar")
    assert found.k3s.env == (("K3S_RESOLV_CONF", ""),)
    assert found.k3s_agent.args == ("--private-registry", "/etc/registries.yaml")
    assert found.k3s_agent.env == (("K3S_RESOLV_CONF", "/etc/resolv.conf"),)


def test_the_embedded_registry_and_an_external_database_are_k3s_settings(load: Load) -> None:
    assert settings(load, "embedded-registry").k3s.embedded_registry
    database = settings(load, "everything").external_db
    assert database == "mysql://someone:secret@tcp(db.example.org:3306)/k3s"


def test_edgevpns_dns_and_variables_are_said_to_have_no_effect(load: Load) -> None:
    idle = [item for item in settings(load, "dns").findings if item.code == "MESH-1028"]
    assert [str(item.message).partition(" ")[0] for item in idle] == ["p2p.dns", "p2p.vpn.env"]


IDLE = {
    "dns": ["p2p.dns", "p2p.vpn.env"],
}
"""Keys of the examples that have no effect here, though they have one in Kairos."""


@pytest.mark.parametrize("name", [*SINGLE_MASTER, *HA])
def test_no_example_earns_a_needless_warning(load: Load, name: str) -> None:
    found = settings(load, name).findings
    idle = [item.message.partition(" ")[0] for item in found if item.code == "MESH-1028"]
    assert idle == IDLE.get(name, [])
    # Besides: how many machines an EdgeVPN token stands for, and the overlay it asks for.
    assert {item.code for item in found} <= {"MESH-1028", "MESH-1029", "MESH-1031"}


def test_variables_of_a_vpn_that_is_off_are_not_spoken_of(load: Load) -> None:
    text = "p2p: {network_token: TOKEN, dns: true, vpn: {create: CREATE, env: {DHCP: 'true'}}}"
    for create, named in (("true", ["p2p.dns", "p2p.vpn.env"]), ("false", [])):
        found = load(text.replace("CREATE", create)).findings
        idle = [item.message.partition(" ")[0] for item in found if item.code == "MESH-1028"]
        assert idle == named


def test_what_is_for_other_readers_is_not_spoken_of(load: Load) -> None:
    for name in ("netboot", "ha-kubevip", "embedded-registry"):
        assert codes(examined(load, name)) <= {"MESH-1029", "MESH-1031"}, name


def test_the_example_with_a_misplaced_key_is_refused_with_its_place(load: Load) -> None:
    (error,) = [
        item for item in examined(load, "ha-kubevip-misplaced").errors if item.code == "MESH-1024"
    ]
    assert error.message.startswith("p2p.ha.master_nodes is not read here")
    assert error.fix == "move it to p2p.auto.ha.master_nodes"


def test_of_the_reference_only_what_breaks_a_cluster_is_refused(load: Load) -> None:
    refused = [
        error.message.partition(" decides")[0] for error in examined(load, "reference").errors
    ]
    assert refused == [
        "k3s.env: K3S_DATASTORE_ENDPOINT",
        "k3s.args: --data-dir",
        "k3s-agent.env: K3S_NODE_NAME",
    ]


# Where Kairos' JSON Schema (sdk/schema/p2p_schema.go) and its code disagree, its code is followed.


def test_kubevip_interface_is_a_name_as_in_kairos_code(load: Load) -> None:
    assert load(
        "p2p: {network_token: TOKEN}\nkubevip: {eip: 10.0.0.9, interface: eth1}"
    ).kubevip == (KubeVip(address="10.0.0.9", interface="eth1"))
    (error,) = load.examine("p2p: {network_token: TOKEN}\nkubevip: {interface: true}").errors
    assert error.message == "kubevip.interface is 'true'"


def test_vpn_create_is_its_name_as_in_kairos_code(load: Load) -> None:
    assert not load("p2p: {network_token: TOKEN, vpn: {create: false}}").overlay_asked
    found = load.examine("p2p: {network_token: TOKEN, vpn: {vpn: false}}")
    assert found.settings is not None
    assert found.settings.overlay_asked
    assert "p2p.vpn.vpn is no known key" in found.findings[0].message


def test_minimum_nodes_loglevel_and_dynamic_roles_are_known_as_in_kairos_code(load: Load) -> None:
    found = load(
        "p2p: {network_token: TOKEN, minimum_nodes: 5, loglevel: warn, dynamic_roles: false}"
    )
    assert found.bounds.quorum == 5
    assert found.log_level == "warning"
    assert "MESH-1023" not in {item.code for item in found.findings}


def test_users_are_not_required_as_in_kairos_code(load: Load) -> None:
    assert load.examine("p2p: {network_token: TOKEN}").errors == ()


def test_no_master_besides_the_first_is_a_control_plane_of_1_as_in_kairos_code(load: Load) -> None:
    found = load(
        "p2p: {network_token: EDGEVPN, auto: {ha: {master_nodes: 0}}, meshd: {nodes_max: 3}}"
    )
    assert found.bounds.control_plane == 1


def test_kube_vips_settings_are_found_where_kairos_code_finds_them(load: Load) -> None:
    text = """
p2p: {network_token: TOKEN}
kubevip:
  eip: 10.0.0.9
  config:
    enableServices: true
    kubernetesleaderelection: {leaseduration: 15, renewdeadline: 10, retryperiod: 2}
"""
    found = load(text).kubevip
    assert found is not None
    assert (found.lease_duration_s, found.renew_deadline_s, found.retry_period_s) == (15, 10, 2)
    (error,) = load.examine(text + "  leaseDuration: 15\n").errors
    assert error.code == "MESH-1042"


def test_an_agent_that_is_disabled_gets_no_arguments_as_in_kairos_code(load: Load) -> None:
    text = """
p2p: {network_token: TOKEN, vpn: {create: false}}
k3s-agent: {ENABLED args: [--x], env: {A: b}}
"""
    for enabled, agents in (("", True), ("enabled: true,", True), ("enabled: false,", False)):
        found = load(text.replace("ENABLED", enabled))
        assert found.k3s_agent.args == (("--x",) if agents else ())
        assert found.k3s_agent.env == ((("A", "b"),) if agents else ())
        assert found.findings == ()


def test_enabled_decides_no_role_as_in_kairos_code(load: Load) -> None:
    found = load(
        "p2p: {network_token: TOKEN, vpn: {create: false}}\nk3s: {enabled: false, args: [--x]}"
    )
    assert (found.role, found.k3s.args) == ("auto", ("--x",))
    assert "p2p.role: none" in found.findings[0].message
    assert (
        load("p2p: {network_token: TOKEN, vpn: {create: false}}\nk3s: {enabled: true}").findings
        == ()
    )


def test_what_meshd_only_suggests_can_be_replaced(load: Load) -> None:
    found = load("""
p2p: {network_token: TOKEN, vpn: {create: false}}
k3s: {replace_args: true, replace_env: true, args: [--flannel-backend=host-gw]}
""")
    assert found.k3s.replace_args
    assert not found.k3s_agent.replace_args
    assert found.findings == ()  # There are no variables of meshd's own to leave out.


def test_agents_follow_the_servers_embedded_registry(load: Load) -> None:
    text = (
        "p2p: {network_token: TOKEN, vpn: {create: false}}\nk3s-agent: {embedded_registry: true}\n"
    )
    (item,) = load(text).findings
    assert item.message.startswith("k3s-agent.embedded_registry has no effect: workers follow")
    assert load(text + "k3s: {embedded_registry: true}").findings == ()


def test_yes_and_on_are_refused_though_kairos_code_takes_them_for_true(load: Load) -> None:
    for word, meant in (("yes", "true"), ("On", "true"), ("off", "false")):
        (error,) = load.examine(f"p2p: {{network_token: TOKEN, disable_dht: {word}}}").errors
        assert error.fix == f"write {meant}"
