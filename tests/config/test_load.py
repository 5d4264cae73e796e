"""From files to settings: a Kairos file as it is, and every way to get one wrong."""

from pathlib import Path

import pytest

from meshd.config import KubeVip, encode_token, load_settings, parse_token
from meshd.config.load import load_join_token, read_configuration
from meshd.errors import ConfigError
from roles import Bounds
from tests.config.edgevpn_tokens import edgevpn_token
from tests.config.loading import ENV, TOKEN, Load, codes, refusal

# kairos.io, "P2P support", the example with KubeVIP and HA (with the key at its right place).
KAIROS_HA = """
install:
  device: auto
  auto: true
hostname: kairoslab-{{ trunc 4 .MachineID }}
users:
  - name: kairos
    passwd: kairos
p2p:
  disable_dht: true
  vpn:
    create: false
    use: false
  auto:
    enable: true
    ha:
      enable: true
      master_nodes: 2
  network_token: "EDGEVPN"
kubevip:
  eip: "192.168.1.110"
k3s:
  enabled: true
  args:
    - --disable=traefik,servicelb
  env:
    K3S_NODE_NAME: ""
"""


def test_a_kairos_file_for_ha_with_kubevip_works_as_it_is(load: Load) -> None:
    settings = load(KAIROS_HA)
    assert settings.bounds == Bounds(bound="open", nodes_max=0, quorum=3, control_plane=3)
    assert settings.network == parse_token(edgevpn_token()).network
    assert settings.kubevip == KubeVip(address="192.168.1.110")
    assert settings.role == "auto"
    assert settings.discovery == ("lan", "seeds")
    assert settings.k3s.args == ("--disable=traefik,servicelb",)
    assert not settings.overlay_asked
    assert codes(settings) == ["MESH-1029"]
    assert "of 3 or more a majority starts the cluster" in settings.findings[0].message


def test_a_meshd_token_alone_is_enough(load: Load) -> None:
    settings = load("p2p: {network_token: TOKEN}")
    assert settings.bounds == Bounds(bound="bounded", nodes_max=7, quorum=4, control_plane=3)
    assert settings.seeds == ("/ip4/203.0.113.7/tcp/7946",)
    assert settings.listen == ("/ip4/0.0.0.0/tcp/7946", "/ip6/::/tcp/7946")
    assert settings.discovery == ("lan", "seeds", "dht")
    assert settings.log_level == "info"
    assert settings.kubevip is None


def test_meshds_own_keys_are_read(load: Load) -> None:
    settings = load("""
p2p:
  network_token: TOKEN
  role: worker
  loglevel: debug
  meshd:
    nodes_max: 5
    seeds: [/dns/Seed.Example.ORG/tcp/7946, /ip4/203.0.113.7/tcp/7946]
    listen: [/ip4/10.0.0.1/tcp/7947]
    discovery: [lan, dht]
    interface: eth1
    labels: {zone: b, rack: 7}
    log_level: warning
""")
    assert settings.role == "worker"
    assert settings.bounds.nodes_max == 5
    assert settings.seeds == ("/ip4/203.0.113.7/tcp/7946", "/dns/seed.example.org/tcp/7946")
    assert settings.listen == ("/ip4/10.0.0.1/tcp/7947",)
    assert settings.discovery == ("lan", "dht")
    assert settings.interface == "eth1"
    assert settings.labels == (("rack", "7"), ("zone", "b"))
    assert settings.log_level == "warning"


@pytest.mark.parametrize(
    ("word", "role"),
    [
        ("''", "auto"),
        ("auto", "auto"),
        ("master", "control-plane"),
        ("control-plane", "control-plane"),
        ("worker", "worker"),
        ("none", "none"),
    ],
)
def test_kairos_role_words_keep_their_meaning(load: Load, word: str, role: str) -> None:
    assert load(f"p2p: {{network_token: TOKEN, role: {word}}}").role == role


def test_kube_vips_own_settings_are_kept_with_their_types(load: Load) -> None:
    kubevip = load("""
p2p: {network_token: TOKEN}
kubevip:
  eip: fd00::0:50
  interface: ens18
  static_pod: true
  leaseduration: 15
  renewDeadline: 10
  retryPeriod: 2
  enableServices: false
  vipsubnet: 128
  port: 6443
""").kubevip
    assert kubevip == KubeVip(
        address="fd00::50",
        interface="ens18",
        static_pod=True,
        lease_duration_s=15,
        renew_deadline_s=10,
        retry_period_s=2,
        variables=(("svc_enable", "false"),),
    )


def test_kubevip_that_is_off_is_no_vip(load: Load) -> None:
    assert load("p2p: {network_token: TOKEN}\nkubevip: {eip: 10.0.0.9, enable: false}").kubevip is (
        None
    )


# Wrong values, unknown and misplaced keys.


@pytest.mark.parametrize(
    ("text", "place", "what", "fix"),
    [
        ("p2p:\n  role: mastr", "3:9", "p2p.role is 'mastr'", "did you mean 'master'?"),
        ("p2p:\n  role: master/ha", "3:9", "p2p.role is 'master/ha'", "write one of auto"),
        ("p2p:\n  disable_dht: yes", "3:16", "is 'yes', which is a word in YAML 1.2", "write true"),
        ("p2p:\n  disable_dht: 'true'", "3:16", "is 'true'", "without quotes"),
        (
            "p2p: {auto: {ha: {master_nodes: 12}}}",
            "2:33",
            "p2p.auto.ha.master_nodes is '12'",
            "write a whole number from 0 to 6",
        ),
        ("p2p:\n  minimum_nodes: '3'", "3:18", "is '3'", "without quotes"),
        ("p2p: {meshd: {nodes_max: [3]}}", "2:26", "is a list", "whole number from 1"),
        ("p2p: text", "2:6", "p2p is one value, not a mapping", "indented"),
        ("kubevip:\n  eip: vip.lan", "3:8", "kubevip.eip is 'vip.lan'", "such as 10.0.0.50"),
        ("kubevip: {eip: 10.0.0.5/24}", "2:16", "is '10.0.0.5/24'", "no mask"),
        ("k3s:\n  args: --disable=traefik", "3:9", "k3s.args is '--disable=traefik'", "a list"),
        ("k3s: {env: [A=B]}", "2:12", "k3s.env does not do", "a mapping"),
        ("p2p: {meshd: {seeds: [10.0.0.1]}}", "2:23", "not of the form", "/ip4/"),
        ("p2p: {meshd: {repair_after: soon}}", "2:29", "is 'soon'", "10m"),
        ("p2p: {meshd: {overlay_cidr: 10.1.0.1/16}}", "2:29", "has host bits set", "10.1.0.0/16"),
        ("p2p: {meshd: {discovery: [lan, wan]}}", "2:32", "is 'wan'", "did you mean 'lan'?"),
    ],
)
def test_a_wrong_value_is_an_error_with_place_value_and_what_would_do(
    load: Load, text: str, place: str, what: str, fix: str
) -> None:
    error = refusal(load, text)
    assert error.code == "MESH-1022"
    assert f"c.yaml:{place}: " in error.what
    assert what in error.what
    assert fix in error.fix


def test_an_error_does_not_show_the_value_of_a_secret_argument(load: Load) -> None:
    error = refusal(load, "k3s: {args: --agent-token=hunter2 --debug}")
    assert "k3s.args is '--agent-token=(hidden) --debug'" in error.what


def test_an_unknown_key_is_a_warning_with_place_and_proposal(load: Load) -> None:
    settings = load(
        "p2p:\n  network_token: TOKEN\n  disable_dhd: true\n  frobnicate: 1\nstages: {}"
    )
    unknown = [finding for finding in settings.findings if finding.code == "MESH-1023"]
    assert [finding.located.rpartition("/")[2] for finding in unknown] == [
        "c.yaml:4:3: p2p.disable_dhd is no known key; did you mean 'disable_dht'?",
        "c.yaml:5:3: p2p.frobnicate is no known key",
    ]


@pytest.mark.parametrize(
    ("text", "place", "home"),
    [
        ("p2p:\n  ha:\n    enable: true\n    master_nodes: 2", "5:5", "p2p.auto.ha.master_nodes"),
        ("p2p:\n  auto:\n    master_nodes: 2", "4:5", "p2p.auto.ha.master_nodes"),
        ("p2p:\n  nodes_max: 2", "3:3", "p2p.meshd.nodes_max"),
        ("p2p:\n  kubevip:\n    eip: 10.0.0.9", "4:5", "kubevip.eip"),
        ("p2p:\n  meshd:\n    minimum_nodes: 4", "4:5", "p2p.minimum_nodes"),
    ],
)
def test_a_misplaced_key_that_shapes_the_cluster_stops_the_daemon(
    load: Load, text: str, place: str, home: str
) -> None:
    error = refusal(load, text)
    assert error.code == "MESH-1024"
    assert f"c.yaml:{place}: " in error.what
    assert error.fix == f"move it to {home}"


def test_all_errors_are_found_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("#cloud-config\np2p:\n  role: x\n  dns: 7\nkubevip:\n  eip: y\n")
    configuration = read_configuration([path], ENV)
    assert [error.located.partition(" is ")[0] for error in configuration.errors] == [
        f"{path}:3:9: p2p.role",
        f"{path}:4:8: p2p.dns",
        f"{path}:6:8: kubevip.eip",
    ]
    with pytest.raises(ConfigError, match="and 2 more"):
        load_settings([path], ENV)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("p2p: {auto: {enable: false}}", "MESH-1035"),
        ("p2p: {meshd: {admission: approve}}", "MESH-1037"),
        ("kubevip: {enable: true}", "MESH-1036"),
        ("kubevip: {eip: 10.0.0.9, leaseDuration: 3}", "MESH-1036"),
        ("k3s: {args: [--cluster-init]}", "MESH-1033"),
        ("k3s: {args: ['--server https://x:6443']}", "MESH-1033"),
        ("k3s: {args: [-t, abc]}", "MESH-1033"),
        ("k3s-agent: {args: [--token=abc]}", "MESH-1033"),
        ("k3s: {args: ['--data-dir /x']}", "MESH-1033"),
        ("k3s: {args: [--debug, '--node-name foo']}", "MESH-1033"),
        ("k3s-agent: {args: ['-d /x']}", "MESH-1033"),
        ("k3s: {env: {K3S_DATA_DIR: /x}}", "MESH-1033"),
        ("k3s-agent: {env: {K3S_URL: 'https://x:6443'}}", "MESH-1033"),
        ("k3s: {args: ['--tls-san \"x']}", "MESH-1022"),
    ],
)
def test_what_meshd_cannot_honour_is_refused(load: Load, text: str, code: str) -> None:
    error = refusal(load, text)
    assert error.code == code
    assert "c.yaml:2:" in error.what


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ("dynamic_roles: true", "MESH-1028"),
        ("dns: true", "MESH-1028"),
        ("vpn: {env: {DHCP: 'true'}}", "MESH-1028"),
        ("meshd: {relay_service: never}", "MESH-1028"),
        ("meshd: {labels: {zone: '{{ .Zone }}'}}", "MESH-1034"),
        ("vpn: {create: true}", "MESH-1031"),
    ],
)
def test_what_has_no_effect_is_said(load: Load, keys: str, code: str) -> None:
    assert code in codes(load(f"p2p: {{network_token: TOKEN, {keys}}}"))


def test_config_url_is_named_as_not_supported(load: Load) -> None:
    settings = load("config_url: https://x\np2p: {network_token: TOKEN}")
    assert "MESH-1034" in codes(settings)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("", True),
        ("  vpn: {create: false}\n", False),
        ("  vpn: {use: false}\n", False),
        ("kubevip: {eip: 10.0.0.9}\n", False),
        ("kubevip: {eip: 10.0.0.9, enable: false}\n", True),
    ],
)
def test_a_file_that_asks_for_the_overlay_forms_on_the_lan_and_says_so(
    load: Load,
    text: str,
    asked: bool,  # noqa: FBT001 - A column of the table.
) -> None:
    settings = load(f"p2p:\n  network_token: TOKEN\n{text}")
    assert settings.overlay_asked is asked
    assert ("MESH-1031" in codes(settings)) is asked


# The token.


def test_no_token_anywhere_is_an_error_that_names_what_was_read(load: Load) -> None:
    error = refusal(load, "p2p: {role: worker}")
    assert error.code == "MESH-1026"
    assert "c.yaml" in (error.cause or "")


def test_a_mistyped_token_is_an_error_at_its_place_that_does_not_show_it(load: Load) -> None:
    error = refusal(load, "p2p:\n  network_token: TOKENq")
    assert error.code == "MESH-1002"
    assert "c.yaml:3:18: the token is mistyped" in error.what
    assert TOKEN not in error.render()


def test_the_token_file_of_the_environment_wins(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN.upper() + "\n")
    settings = load("p2p: {role: worker}", MESHD_TOKEN_FILE=str(file))
    assert settings.network == parse_token(TOKEN).network
    with pytest.raises(ConfigError, match=r"MESHD_TOKEN_FILE: .* cannot be read"):
        load("p2p: {role: worker}", MESHD_TOKEN_FILE=str(tmp_path / "absent"))


def test_network_ids_make_separate_networks_of_one_token(load: Load) -> None:
    own = load("p2p: {network_token: TOKEN}").network
    named = load("p2p: {network_token: TOKEN, network_id: lab}").network
    assert named.network_id != own.network_id
    assert named.secret != own.secret
    assert named == load("p2p: {network_token: TOKEN, network_id: lab}").network
    for same in ("kairos", "''", own.network_id):
        assert load(f"p2p: {{network_token: TOKEN, network_id: {same}}}").network == own


def test_a_join_token_keeps_network_and_bounds(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"#cloud-config\np2p: {{network_token: {TOKEN}}}\n")
    token = load_join_token([path], ENV)
    assert token.network.capability == "join"
    assert token.network.secret == parse_token(TOKEN).network.secret
    ha = "auto: {ha: {master_nodes: 2}}"
    path.write_text(f"#cloud-config\np2p: {{network_token: {edgevpn_token()}, {ha}}}\n")
    token = load_join_token([path], ENV)
    assert parse_token(encode_token(token)) == token
    assert token.network.network_id == parse_token(edgevpn_token()).network.network_id
    assert token.bounds == Bounds.unbounded(control_plane=3)


def test_arguments_are_split_into_words_as_for_a_shell(load: Load) -> None:
    settings = load(
        "p2p: {network_token: TOKEN}\n"
        "k3s: {args: ['--disable traefik', --tls-san, me, '--node-label \"a=b c\"', --x='1 2']}\n"
        "k3s-agent: {args: ['--kubelet-arg=\"x y\"']}"
    )
    assert settings.k3s.args == (
        "--disable", "traefik", "--tls-san", "me", "--node-label", "a=b c", "--x=1 2",
    )  # fmt: skip
    assert settings.k3s_agent.args == ("--kubelet-arg=x y",)


def test_an_empty_variable_that_is_meshds_does_not_reach_k3s(load: Load) -> None:
    env = "k3s: {env: {K3S_NODE_NAME: '', K3S_RESOLV_CONF: '', A: b}}"
    settings = load(f"p2p: {{network_token: TOKEN}}\n{env}")
    assert settings.k3s.env == (("A", "b"), ("K3S_RESOLV_CONF", ""))


# What the settings say to others.


def test_the_settings_hash_follows_meaning_and_not_spelling(load: Load) -> None:
    one = load(
        "p2p: {network_token: TOKEN}\nk3s: {args: [--cluster-cidr=10.1.0.0/16, --tls-san=a]}"
    )
    same = load("p2p: {network_token: TOKEN}\nk3s: {args: ['--cluster-cidr 10.1.0.0/16']}")
    quoted = load("p2p: {network_token: TOKEN}\nk3s: {args: ['--cluster-cidr=\"10.1.0.0/16\"']}")
    other = load("p2p: {network_token: TOKEN}\nk3s: {args: [--cluster-cidr=10.2.0.0/16]}")
    assert one.settings_hash() == same.settings_hash() != other.settings_hash()
    assert quoted.settings_hash() == one.settings_hash()
    assert len(bytes.fromhex(one.settings_hash())) == 32
    assert one.unusual_settings() == (("cluster-cidr", "10.1.0.0/16"),)


def test_another_virtual_address_is_another_setting(load: Load) -> None:
    none = load("p2p: {network_token: TOKEN}")
    one = load("p2p: {network_token: TOKEN}\nkubevip: {eip: 10.0.0.50}")
    other = load("p2p: {network_token: TOKEN}\nkubevip: {eip: 10.0.0.51}")
    assert len({none.settings_hash(), one.settings_hash(), other.settings_hash()}) == 3
    assert none.unusual_settings() == ()
    assert other.unusual_settings() == (("kubevip.eip", "10.0.0.51"),)


def test_settings_never_show_the_secret(load: Load) -> None:
    settings = load(KAIROS_HA)
    assert settings.network.secret.hex() not in repr(settings)
    assert repr(settings.network.secret) not in repr(settings)
