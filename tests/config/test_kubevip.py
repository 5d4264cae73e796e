"""kube-vip's own settings: which reach it, which meshd keeps to itself, and that each is named."""

import json

import pytest

from meshd.config import KubeVip
from meshd.config.key import Key
from meshd.config.kubevip_own import OWN, PASSED
from tests.config.loading import Load

DECIDED = [key for key in OWN if key.idle is not None]


def file(below_kubevip: str, k3s: str = "") -> str:
    return f"p2p: {{network_token: TOKEN}}\nkubevip: {{eip: 10.0.0.9, {below_kubevip}}}\n{k3s}\n"


def settings(load: Load, below_kubevip: str, k3s: str = "") -> KubeVip:
    found = load(file(below_kubevip, k3s)).kubevip
    assert found is not None
    return found


def warnings(load: Load, below_kubevip: str, k3s: str = "") -> list[tuple[str, str]]:
    return [(item.code, item.message) for item in load(file(below_kubevip, k3s)).findings]


def test_kube_vips_settings_become_its_variables(load: Load) -> None:
    kubevip = settings(
        load,
        "loseLeadership: true, loseleadershiptimeoutseconds: 5, logging: 4, servicesInterface: "
        "eth1, enableNodeLabeling: false, leaseAnnotations: {b: 2, a: x}",
    )
    assert kubevip.variables == (
        ("enable_node_labeling", "false"),
        ("vip_leaseannotations", json.dumps({"a": "x", "b": "2"})),
        ("vip_loglevel", "4"),
        ("vip_loseleadership", "true"),
        ("vip_loseleadership_timeout_seconds", "5"),
        ("vip_servicesinterface", "eth1"),
    )


def test_an_empty_setting_is_none(load: Load) -> None:
    assert settings(load, 'servicesInterface: "", lbClassName: ').variables == ()


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        ("healthCheckPort: 80", "write a whole number from 1024 to 65535"),
        ("lbPort: 70000", "write a whole number from 1 to 65535"),
        ('loseLeadership: "true"', "write true, without quotes"),
    ],
)
def test_what_would_end_kube_vip_at_its_start_is_refused(load: Load, wrong: str, fix: str) -> None:
    (error,) = load.examine(file(wrong)).errors
    assert error.fix == fix


@pytest.mark.parametrize("key", DECIDED, ids=lambda key: key.path)
def test_a_setting_that_meshd_decides_is_named_and_does_not_reach_kube_vip(
    load: Load, key: Key[object]
) -> None:
    name = key.path.partition(".")[2]
    kind = key.read.schema["type"]
    other: list[object] = ["other"]
    if kind in ("boolean", "integer"):
        other = [True, False] if kind == "boolean" else [7]
    for value in (one for one in other if one not in key.settled):
        found = load(file(f"{name}: {json.dumps(value)}"))
        assert found.kubevip == KubeVip(address="10.0.0.9")
        (item,) = found.findings
        assert item.code == "MESH-1028"
        assert item.message == f"{key.path} has no effect: {key.idle}"
    for value in key.settled:
        found = load(file(f"{name}: {json.dumps(value)}"))
        assert (found.kubevip, found.findings) == (KubeVip(address="10.0.0.9"), ())


def test_no_setting_is_both_passed_on_and_decided() -> None:
    paths = [key.path for key in OWN]
    assert len(set(paths)) == len(paths)
    assert not {key.path for key in PASSED.values()} & {key.path for key in DECIDED}


def test_services_stay_off_while_k3s_serves_them_itself(load: Load) -> None:
    asked = "enableServices: true, enableServicesElection: true"
    assert dict(settings(load, asked).variables)["svc_enable"] == "false"
    ((code, message),) = warnings(load, asked)
    assert code == "MESH-6020"
    assert message.startswith("kubevip.enableServices has no effect: k3s' own service balancer")


@pytest.mark.parametrize(
    ("more", "k3s"),
    [
        (", lbClassOnly: true", ""),
        ("", "k3s: {args: [--disable=traefik, --disable servicelb]}"),
        ("", "k3s: {args: ['--disable=traefik,servicelb']}"),
    ],
)
def test_services_are_served_where_k3s_leaves_them(load: Load, more: str, k3s: str) -> None:
    asked = "enableServices: true, serviceNamespace: web" + more
    variables = dict(settings(load, asked, k3s).variables)
    assert (variables["svc_enable"], variables["svc_namespace"]) == ("true", "web")
    assert warnings(load, asked, k3s) == []


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ("", "ghcr.io/kube-vip/kube-vip:v9"),
        ("image: registry.example:5000/kube-vip, ", "registry.example:5000/kube-vip:v9"),
        ("image: 'registry.example/kube-vip:v8', ", "registry.example/kube-vip:v8"),
        ("image: 'x/kube-vip@sha256:00ff', ", "x/kube-vip@sha256:00ff"),
    ],
)
def test_an_image_may_name_its_version_itself(load: Load, image: str, reference: str) -> None:
    asked = f"{image}version: v9"
    assert settings(load, asked).reference == reference
    codes = [code for code, _ in warnings(load, asked)]
    assert codes == ([] if reference.endswith("v9") else ["MESH-6021"])


def test_servers_without_pods_serve_no_address(load: Load) -> None:
    ((code, message),) = warnings(load, "", "k3s: {args: [--disable-agent]}")
    assert code == "MESH-6022"
    assert message.startswith("nothing will serve kubevip.eip")
    assert warnings(load, "", "k3s: {args: [--disable-agent=false]}") == []


def test_a_manifest_from_the_web_is_not_fetched_and_what_to_do_is_said(load: Load) -> None:
    (item,) = load(file("manifest_url: 'http://example.org/rbac.yaml'")).findings
    assert item.message.startswith("kubevip.manifest_url has no effect")
    assert "/var/lib/rancher/k3s/server/manifests" in item.fix
