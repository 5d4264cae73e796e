"""Every verb of `meshd demo`, on a cluster that is up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from meshd.config import age
from simulations.lab import cloudconfig, removal
from simulations.lab.laboratory import Laboratory
from tests.lab.conftest import Bench, Run

pytestmark = pytest.mark.lab

ADMIN = X25519PrivateKey.generate()


@pytest.fixture(scope="module")
def formed(shared_bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Three servers, complete; their file is a user's, and names an administrator."""
    vip = shared_bench.places.vip
    text = cloudconfig.generate(nodes=3, control_plane=3, k3s="stand-in", vip=vip)
    content = yaml.safe_load(text)
    content["p2p"]["meshd"] = {"admins": [age.write_public_key(ADMIN)]}
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text("#cloud-config\n" + yaml.safe_dump(content, sort_keys=False))
    run = shared_bench.demo("up", "--nodes", "3", "--config", str(config), "--wait")
    assert run.code == 0, run.err
    return shared_bench


def status(bench: Bench) -> dict[str, Any]:
    run = bench.demo("status", "-o", "json")
    assert run.code == 0
    content = json.loads(run.out)
    assert isinstance(content, dict)
    return content


def states(bench: Bench) -> dict[str, str]:
    return {node["name"]: node["state"] for node in status(bench)["nodes"]}


def sees(bench: Bench) -> dict[str, set[str]]:
    """Return whom each node that answers sees alive."""
    return {
        node["name"]: {n["name"] for n in node["status"]["nodes"] if n["state"] == "alive"}
        for node in status(bench)["nodes"]
        if node["status"] is not None
    }


def wait_until_all_see(bench: Bench, *names: str) -> None:
    wanted = {name: set(names) for name in names}
    bench.wait_until(f"all of {names} to see one another", lambda: sees(bench) == wanted)


def test_status_names_every_node_and_says_that_k3s_is_a_stand_in(formed: Bench) -> None:
    run = formed.demo("status")
    assert run.code == 0
    assert "stand-in, not k3s" in run.out.splitlines()[0]
    assert [line.split()[0] for line in run.out.splitlines()[2:]] == ["n1", "n2", "n3"]
    content = status(formed)
    assert (content["api_version"], content["kind"]) == ("meshd/v1", "LabStatus")
    assert content["k3s"]["standin"] is True
    assert sum(node["has_vip"] for node in content["nodes"]) == 1


def test_exec_passes_input_output_and_exit_code(formed: Bench) -> None:
    run = formed.demo("exec", "n2", "--", "sh", "-c", "hostname; cat; exit 7", stdin="hello\n")
    assert (run.code, run.out) == (7, "n2\nhello\n")


def test_exec_is_inside_the_nodes_network_disk_and_path(formed: Bench) -> None:
    run = formed.demo("exec", "n2", "--", "ip", "-br", "-4", "addr", "show", "dev", "eth0")
    assert "10.0.0.12/24" in run.out
    assert formed.demo("exec", "n2", "--", "ls", "/var/lib/meshd/identity.key").code == 0
    assert "stand-in" in formed.demo("exec", "n2", "--", "k3s", "--version").out
    said = json.loads(formed.demo("exec", "n2", "--", "meshd", "status", "-o", "json").out)
    assert said["node"]["name"] == "n2"
    assert said["genesis"]["phase"] == "formed"


SCRAPE = """
import http.client, socket
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/meshd/ro.sock")
connection.request("GET", "/metrics")
print(connection.getresponse().read().decode())
"""


def test_every_node_can_be_scraped_and_its_log_is_json_without_the_token(formed: Bench) -> None:
    nodes = Laboratory.load(formed.places).nodes()

    def scraped() -> list[str]:
        return [
            formed.demo("exec", one.name, "--", sys.executable, "-c", SCRAPE).out for one in nodes
        ]

    def logged() -> list[set[str]]:
        logs = [one.log.read_text(encoding="utf-8").splitlines() for one in nodes]
        return [{json.loads(line)["event"] for line in lines} for lines in logs]

    for page in scraped():
        assert 'meshd_role_info{role="control-plane"} 1.0' in page
        assert 'meshd_peers{path="direct",state="alive"} 2.0' in page
    # k3s' Lease is read now and then, and the log is written every two seconds.
    formed.wait_until(
        "one node to say that it holds the VIP",
        lambda: sum("meshd_vip_holder 1.0" in page for page in scraped()) == 1,
    )
    told = {"listening", "role_decided", "cluster_formed", "steady"}
    formed.wait_until("every log to say so", lambda: all(told <= events for events in logged()))
    for node in nodes:
        config = yaml.safe_load(node.cloud_config.read_text(encoding="utf-8"))
        token = config["p2p"]["network_token"]
        log = node.log.read_text(encoding="utf-8")
        assert not [at for at in range(len(token) - 15) if token[at : at + 16] in log]


def explained(bench: Bench, *arguments: str) -> dict[str, Any]:
    """Return, by subject, the causes that n2 gives."""
    run = bench.demo("exec", "n2", "--", "meshd", "explain", *arguments, "-o", "json")
    assert run.code == 0, run.err
    content = json.loads(run.out)
    assert content["kind"] == "Explanation"
    return {cause["subject"]: cause for cause in content["causes"]} | {"": content}


def test_a_node_explains_its_role_its_way_and_the_address_with_places_and_records(
    formed: Bench,
) -> None:
    role = explained(formed, "role")
    places = {one["key"]: one["place"] for one in role["seats"]["settings"]}
    assert places["p2p.network_token"].endswith("/n2/cloud-config.yaml:3")
    assert role["plan"]["record"]["key"] == "genesis/1/claim"
    assert role["plan"]["record"]["signers"] == ["n1", "n2", "n3"]
    assert role["plan"]["entries"]
    join = explained(formed, "join", "n1")
    assert join[""]["answer"] == "has joined"
    assert "beacon" in join["found"]["text"]
    assert "with this node (direct, " in join["connected"]["text"]
    own = explained(formed, "join")
    assert own["synchronised"]["text"].startswith("with n1, n3: all they held is here")
    assert all(cause["fulfilled"] for subject, cause in own.items() if subject)
    formed.wait_until(  # k3s' Lease is read now and then.
        "the holder of the address to be explained",
        lambda: "holds kube-vip's lease" in explained(formed, "vip")["holder"]["text"],
    )
    genesis = explained(formed, "genesis")
    assert [genesis[slot]["fulfilled"] for slot in ("CLAIM", "STARTED", "DONE")] == [True] * 3


def test_a_node_that_is_not_there_is_named(formed: Bench) -> None:
    run = formed.demo("kill", "n9")
    assert run.code == 1
    assert "MESH-8004" in run.err
    assert "n1, n2, n3" in run.err


def test_a_second_up_says_so_and_changes_nothing(formed: Bench) -> None:
    before = status(formed)
    run = formed.demo("up", "--nodes", "1")
    assert run.code == 1
    assert "MESH-8002" in run.err
    assert states(formed) == {node["name"]: node["state"] for node in before["nodes"]}


def test_every_node_has_the_same_file_byte_for_byte(formed: Bench) -> None:
    nodes = Laboratory.load(formed.places).nodes()
    assert len({node.cloud_config.read_bytes() for node in nodes}) == 1


def test_a_killed_node_is_dead_and_boots_again_with_its_disk(formed: Bench) -> None:
    before = {node["name"]: node for node in status(formed)["nodes"]}
    assert formed.demo("kill", "n3").code == 0
    assert states(formed) == {"n1": "up", "n2": "up", "n3": "down"}
    refused = formed.demo("exec", "n3", "--", "true")
    assert refused.code == 1
    assert "MESH-8005" in refused.err
    wait_until_all_see(formed, "n1", "n2")
    assert formed.demo("start", "n3").code == 0
    wait_until_all_see(formed, "n1", "n2", "n3")
    after = {node["name"]: node for node in status(formed)["nodes"]}
    assert after["n3"]["status"]["node"]["id"] == before["n3"]["status"]["node"]["id"]
    formed.wait_until_complete(Laboratory.load(formed.places))


def test_a_cut_separates_and_each_side_keeps_a_lan_until_heal(formed: Bench) -> None:
    assert formed.demo("cut", "n2", "n3").code == 0
    formed.wait_until(
        "both sides to see only themselves",
        lambda: sees(formed) == {"n1": {"n1"}, "n2": {"n2", "n3"}, "n3": {"n2", "n3"}},
    )
    assert formed.demo("heal").out == "n2 n3: back\n"
    wait_until_all_see(formed, "n1", "n2", "n3")
    formed.wait_until_complete(Laboratory.load(formed.places))


def own_of(bench: Bench, name: str) -> dict[str, Any]:
    """Return what a node says of itself."""
    found = next(node for node in status(bench)["nodes"] if node["name"] == name)
    own = found["status"]["node"]
    assert isinstance(own, dict)
    return own


def test_a_machine_added_later_becomes_a_worker(formed: Bench) -> None:
    assert formed.demo("add").out == "n4 boots\n"
    formed.wait_until_complete(Laboratory.load(formed.places))
    assert own_of(formed, "n4")["role"] == "worker"


ASK = """
import base64, http.client, json, ssl, sys, tempfile, yaml
content = yaml.safe_load(sys.stdin)
(cluster,), (user,) = content["clusters"], content["users"]
server, asked = cluster["cluster"]["server"], []
with tempfile.NamedTemporaryFile() as authority, tempfile.NamedTemporaryFile() as pair:
    authority.write(base64.b64decode(cluster["cluster"]["certificate-authority-data"]))
    for part in ("client-certificate-data", "client-key-data"):
        pair.write(base64.b64decode(user["user"][part]))
    authority.flush(), pair.flush()
    context = ssl.create_default_context(cafile=authority.name)
    context.load_cert_chain(pair.name)
connection = http.client.HTTPSConnection(server.removeprefix("https://"), context=context)
connection.request("GET", "/api/v1/nodes")
answer = connection.getresponse()
names = {one["metadata"]["name"].split("-")[0] for one in json.loads(answer.read())["items"]}
print(content["current-context"], server, answer.status, *sorted(names))
"""


def test_a_kubeconfig_works_from_a_server_and_for_an_admin_on_a_worker(formed: Bench) -> None:
    """As kubectl does: the file's authority, its certificate, its server."""
    built = Laboratory.load(formed.places)
    network = status(formed)["nodes"][0]["status"]["network"]["id"]
    expected = f"meshd-{network} https://{formed.places.vip}:6443 200 n1 n2 n3 n4\n"

    ours = formed.demo("exec", "n2", "--", "meshd", "kubeconfig")
    assert ours.code == 0, ours.err
    asked = formed.demo("exec", "n4", "--", sys.executable, "-c", ASK, stdin=ours.out)
    assert asked.out == expected, asked.err

    refused = formed.demo("exec", "n4", "--", "meshd", "kubeconfig")
    assert (refused.code, refused.out) == (4, "")
    assert "(n1, n2, n3)" in refused.err

    # The key comes by stdin, and goes nowhere else.
    key = age.write_private_key(ADMIN)

    def open_copy() -> Run:
        return formed.demo("exec", "n4", "--", "meshd", "kubeconfig", "--key", "-", stdin=key)

    formed.wait_until("a copy for the administrator", lambda: open_copy().code == 0)
    opened = open_copy()
    asked = formed.demo("exec", "n4", "--", sys.executable, "-c", ASK, stdin=opened.out)
    assert asked.out == expected, asked.err
    for node in built.nodes():
        assert key not in node.log.read_text(encoding="utf-8")


def test_a_wiped_machine_is_a_new_one(formed: Bench) -> None:
    built = Laboratory.load(formed.places)
    own = own_of(formed, "n4")
    refused = formed.demo("wipe", "n4")
    assert refused.code == 1
    assert "MESH-8006" in refused.err
    formed.demo("kill", "n4")
    assert formed.demo("wipe", "n4").code == 0
    assert [path for path in built.node("n4").disk.rglob("*") if path.is_file()] == []
    formed.demo("start", "n4")
    formed.wait_until("n4 to answer", lambda: states(formed)["n4"] == "up")
    assert own_of(formed, "n4")["id"] != own["id"]


def test_the_audit_is_one_line(formed: Bench) -> None:
    run = formed.demo("audit")
    assert run.code == 0
    assert len(run.out.splitlines()) == 1
    assert run.out.startswith("generation 1  n")


def _mounts() -> list[str]:
    """Return what is mounted here, but for what other laboratories may be at just now."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if " /run/netns" not in line]


def test_down_leaves_nothing_and_says_so_the_second_time(bench: Bench) -> None:
    mounts = _mounts()
    assert bench.demo("up", "--nodes", "2").code == 0
    assert removal.leftovers(bench.places) != ()
    assert bench.demo("down").code == 0
    assert removal.leftovers(bench.places) == ()
    assert _mounts() == mounts
    again = bench.demo("down")
    assert again.code == 0
    assert "nothing to remove" in again.out
    assert "MESH-8003" in bench.demo("status").err


def test_what_a_crash_left_is_removed_by_the_next_up(bench: Bench) -> None:
    built = bench.up(nodes=1)
    bench.places.record.unlink()  # As if `up` had been killed before it wrote its record.
    again = bench.up(nodes=2, boots=False)
    assert again.known.names() == ("n1", "n2")
    assert built.known.names() == ("n1",)


def test_nat_is_refused_in_words(bench: Bench) -> None:
    run = bench.demo("up", "--nat", "2")
    assert run.code == 2
    assert "MESH-8012" in run.err
