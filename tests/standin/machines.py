"""Machines for these tests: network namespaces on one bridge, each with its own folder.

Everything is named after this process, and everything it made is removed by `Site.close`.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parent.parent.parent
STANDIN = (sys.executable, "-m", "simulations.standin")
VIP = "10.99.0.100"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


class NoAnswer(Exception):
    """The machine did not answer, for the reason in the text."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def message(self) -> str:
        return str(self.json()["message"])


class Program:
    """One k3s or stand-in: its process and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, kind: str) -> None:
        self.process = process
        self.kind = kind
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def exit_code(self, timeout_s: float = 30) -> int:
        return self.process.wait(timeout_s)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.exit_code()


class Machine:
    """A namespace with the address 10.99.0.<number>, and a folder for what its k3s writes."""

    def __init__(self, site: Site, number: int) -> None:
        self.site = site
        self.number = number
        self.name = f"k{number}"
        self.address = f"10.99.0.{number}"
        self.url = f"https://{self.address}:6443"
        self.namespace = f"{site.prefix}-{number}"
        self.folder = site.folder / self.name
        self.data = self.folder / "data"
        self.folder.mkdir()
        self._starts = 0

    def start(self, *arguments: str, command: tuple[str, ...] = STANDIN, **env: str) -> Program:
        """Run `k3s server …` or `k3s agent …` here; the log of each start is kept apart."""
        self._starts += 1
        log = self.folder / f"{self._starts}.log"
        kubeconfig = ("--write-kubeconfig", str(self.folder / "k3s.yaml"))
        line = (
            # Not `ip netns exec`: its own /sys has no cgroups, without which a real agent ends.
            *("nsenter", f"--net=/run/netns/{self.namespace}", *self._private(command)),
            *(*command, *arguments),
            *("--data-dir", str(self.data)),
            *(kubeconfig if arguments[0] == "server" else ()),
            *(() if "--node-name" in arguments else ("--node-name", self.name)),
        )
        own = {
            "K3S_CONFIG_FILE": str(self.folder / "config.yaml"),
            "STANDIN_ETC": str(self.folder / "etc"),
            "STANDIN_PROMOTE_INTERVAL_S": "0.5",
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                line,
                cwd=ROOT,
                env={**os.environ, **own, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        program = Program(process, log, command[0])
        self.site.programs.append(program)
        return program

    def _private(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """Give a real k3s an /etc/rancher of its own; the stand-in is told of one."""
        if command == STANDIN:
            return ()
        own = self.folder / "etc"
        own.mkdir(exist_ok=True)
        script = 'mkdir -p /etc/rancher && mount --bind "$0" /etc/rancher && exec "$@"'
        return ("unshare", "--mount", "sh", "-c", script, str(own))

    def ask(
        self,
        path: str,
        *,
        user: str = "",
        admin: bool = False,
        certificate: Path | None = None,
        method: str = "GET",
        body: object = None,
        address: str = "",
        timeout_s: float = 10,
    ) -> Answer:
        """Ask this machine's port 6443 from the bridge; raises NoAnswer."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        headers = {"Content-Type": "application/json"}
        if user:
            headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        connection = http.client.HTTPConnection("unused")
        try:
            if admin:
                folder = self.data / "server" / "tls"
                tls.load_cert_chain(folder / "client-admin.crt", folder / "client-admin.key")
            elif certificate is not None:
                tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
            with in_namespace(f"{self.site.prefix}-br"):
                plain = socket.create_connection((address or self.address, 6443), timeout_s)
            connection.sock = tls.wrap_socket(plain)
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, headers)
            response = connection.getresponse()
            return Answer(response.status, response.read().decode())
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(str(error)) from error
        finally:
            connection.close()

    def nodes(self) -> dict[str, dict[str, str]]:
        """Return {node name: {condition: status}}."""
        items = self._got("/api/v1/nodes")["items"]
        return {
            node["metadata"]["name"]: {c["type"]: c["status"] for c in node["status"]["conditions"]}
            for node in items
        }

    def voters(self) -> list[str]:
        """Return the node names of etcd's voters."""
        answer = self.ask("/db/info", user="server:abc")
        members = answer.json()["members"] if answer.status == 200 else []
        voters = [m["name"] for m in members if not m.get("isLearner")]
        return sorted(name.rpartition("-")[0] for name in voters)

    def uid(self) -> str:
        """Return the uid of namespace kube-system: what tells clusters apart."""
        return str(self._got("/api/v1/namespaces/kube-system")["metadata"]["uid"])

    def _got(self, path: str) -> Any:
        answer = self.ask(path, admin=True)
        if answer.status != 200:
            raise NoAnswer(answer.text)
        return answer.json()

    def ready(self) -> bool:
        return self.ask("/readyz", admin=True, timeout_s=2).status == 200

    @property
    def token(self) -> str:
        """The full token that this server wrote."""
        return (self.data / "server" / "token").read_text().strip()

    @property
    def agent_token(self) -> str:
        return (self.data / "server" / "agent-token").read_text().strip()

    def has_vip(self) -> bool:
        shown = _ip("-n", self.namespace, "-4", "-brief", "address", "show", "dev", "eth0")
        return f"{VIP}/32" in shown

    def link(self, state: str) -> None:
        """Set the machine's port on the bridge `up` or `down`."""
        _ip("-n", f"{self.site.prefix}-br", "link", "set", f"p{self.number}", state)

    def empty(self) -> bool:
        return not self.processes()

    def processes(self) -> list[int]:
        """Return what runs in the namespace, defunct processes left out."""
        found = [int(pid) for pid in _ip("netns", "pids", self.namespace).split()]
        return [pid for pid in found if _alive(pid)]


class Site:
    """The bridge and its machines."""

    def __init__(self, folder: Path) -> None:
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:4]
        self.prefix = f"standin{os.getpid()}{digest}"
        self.folder = folder
        self.machines: list[Machine] = []
        self.programs: list[Program] = []
        bridge = f"{self.prefix}-br"
        _ip("netns", "add", bridge)
        _ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        _ip("-n", bridge, "link", "set", "br0", "up")
        _ip("-n", bridge, "address", "add", "10.99.0.254/24", "dev", "br0")

    def machine(self) -> Machine:
        """Add a machine."""
        machine = Machine(self, len(self.machines) + 1)
        self.machines.append(machine)
        bridge, namespace, port = f"{self.prefix}-br", machine.namespace, f"p{machine.number}"
        _ip("netns", "add", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        veth = ("type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", bridge, "link", "add", port, *veth)
        _ip("-n", bridge, "link", "set", port, "master", "br0", "up")
        _ip("-n", namespace, "address", "add", f"{machine.address}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        _ip("-n", namespace, "route", "add", "default", "via", "10.99.0.254")
        return machine

    def close(self) -> None:
        """End every process in the namespaces, then remove them."""
        for program in self.programs:
            if program.running:
                program.kill()
        for machine in self.machines:
            for pid in machine.processes():
                os.kill(pid, signal.SIGKILL)
            wait_for("the machine is empty", machine.empty)
            _ip("netns", "delete", machine.namespace)
        _ip("netns", "delete", f"{self.prefix}-br")


def save_snapshot(data: Path, file: Path) -> tuple[str, ...]:
    """Return the command that keeps a snapshot of the etcd of this machine in a file."""
    tls = data / "server" / "tls" / "etcd"
    return (
        *("env", "ETCDCTL_API=3", "etcdctl", "--endpoints=https://127.0.0.1:2379"),
        *(f"--cacert={tls}/server-ca.crt", f"--cert={tls}/client.crt", f"--key={tls}/client.key"),
        *("snapshot", "save", str(file)),
    )


def wait_for(what: str, look: Callable[[], _T], timeout_s: float = 60) -> _T:
    """Return what `look` gives once it is true; NoAnswer counts as not yet."""
    deadline = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = seen = look()
            if seen:
                return seen
        except NoAnswer as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout_s} s: {what}; last seen: {last!r}")


@contextmanager
def in_namespace(name: str) -> Iterator[None]:
    """Make this thread's new sockets belong to the namespace."""
    with Path("/proc/thread-self/ns/net").open("rb") as home:
        with Path(f"/run/netns/{name}").open("rb") as there:
            _set_namespace(there.fileno())
        try:
            yield
        finally:
            _set_namespace(home.fileno())


def vip_manifest(extra: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return kube-vip's DaemonSet with k3s' usual election times 5/3/1 s."""
    settings = {
        "vip_arp": "true",
        "address": VIP,
        "vip_interface": "eth0",
        "vip_subnet": "32",
        "vip_leasename": "plndr-cp-lock",
        "vip_leaseduration": "5",
        "vip_renewdeadline": "3",
        "vip_retryperiod": "1",
        **(extra or {}),
    }
    node_name = {"name": "vip_nodename", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    container = {
        "name": "kube-vip",
        "image": "ghcr.io/kube-vip/kube-vip",
        "env": [node_name, *({"name": k, "value": v} for k, v in settings.items())],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kube-vip", "namespace": "kube-system"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout
