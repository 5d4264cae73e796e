"""k3s server: decides how to start, runs etcd and the API, and ends as k3s ends.

The order is k3s' (pkg/cluster/managed.go): a log on disk wins over all flags; then `--server`
joins, even beside `--cluster-init`; then a new cluster starts. A lost database under
`--cluster-init` therefore starts another cluster, here as there.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass

from simulations.standin import pki, tokens
from simulations.standin.agent import Agent, node_facts
from simulations.standin.api import APISERVERS, Api
from simulations.standin.balancer import Balancer
from simulations.standin.etcd import CLIENT_PORT, Etcd, EtcdError, EtcdProcess
from simulations.standin.kube import Objects
from simulations.standin.log import Exit, fatal, log, note
from simulations.standin.manifests import apply_manifests
from simulations.standin.membership import (
    Caretaker,
    Seat,
    join,
    take_seat,
)
from simulations.standin.options import VERSION, Options
from simulations.standin.resetting import refuse_reset, reset_membership
from simulations.standin.supervisor import Supervisor, Untrusted, refusal
from simulations.standin.tokens import Passwords, Token
from simulations.standin.vip import play_kube_vip
from simulations.standin.wire import Unreachable, listen, serve

_PROBE_INTERVAL_S = 2.0
_LEADERSHIP_LOST_AFTER_S = 15.0  # Seen with k3s: 10 to 28 s after its majority is gone.
_ANNOUNCE_INTERVAL_S = 5.0
_ANNOUNCE_LEASE_S = 15  # kube-apiserver's own.
_STARTING_S = 0.2  # k3s answers "starting" for about 0.3 s, which its clients must bear.
_VOTING_POLL_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """How this server starts: with its own log, as a new cluster, or by joining `supervisor`."""

    passwords: Passwords
    supervisor: Supervisor | None


async def run_server(options: Options) -> None:
    """Be a server until something ends it; raises Exit."""
    if options.cluster_reset:
        refuse_reset(options)
    _refuse_other_datastores(options)
    facts = node_facts(options, server=True)
    start = await _prepare(options)
    layout = options.layout
    pki.ensure_authorities(layout.tls)
    tokens.write_token_files(layout, start.passwords)
    pki.write_server_leaves(
        layout, node_name=options.node_name, address=facts.address, san=options.tls_san
    )
    pki.write_kubeconfig(layout, port=options.port, mode=options.kubeconfig_mode)
    layout.manifests.mkdir(parents=True, exist_ok=True, mode=0o700)
    if options.cluster_reset:
        await reset_membership(options, facts.address)
    seat = take_seat(layout, options.node_name, facts.address)
    local = Etcd(layout, [f"https://127.0.0.1:{CLIENT_PORT}"])
    api = Api(layout=layout, passwords=start.passwords, config=options.critical)
    async with (
        _listening(options, api),
        _etcd(options, seat, start.supervisor) as etcd,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(_watch_etcd(etcd))
        group.create_task(_serve_cluster(options, api, seat, local))


def _refuse_other_datastores(options: Options) -> None:
    joins = options.server is not None and options.token is not None
    starts = options.layout.wal.is_dir() or options.cluster_init or options.cluster_reset
    if options.datastore or not (starts or joins):
        raise fatal(
            "stand-in: k3s would start with SQLite or an external datastore here; only embedded"
            " etcd is imitated: give --cluster-init, or --server with --token"
        )


async def _prepare(options: Options) -> _Start:
    """Settle the passwords and fetch what a joining server needs; raises Exit."""
    layout = options.layout
    stored = tokens.stored_passwords(layout)
    given = tokens.parse_token(options.token) if options.token else None
    agent = tokens.parse_token(options.agent_token) if options.agent_token else None
    if layout.wal.is_dir():
        note("etcd's log is on disk: starting from it")
        if given and stored and given.password != stored.server:
            raise fatal(
                "failed to bootstrap cluster data: bootstrap data already found and encrypted"
                " with different token"
            )
    passwords = _passwords(given, agent, stored)
    if layout.wal.is_dir() or options.server is None:
        return _Start(passwords=passwords, supervisor=None)
    assert given is not None
    supervisor = await _bootstrapped(options, options.server, given)
    await _compare_config(options, options.server, agent or given)
    return _Start(passwords=passwords, supervisor=supervisor)


def _passwords(given: Token | None, agent: Token | None, stored: Passwords | None) -> Passwords:
    if given is not None:
        server = given.password
    else:
        server = stored.server if stored is not None else secrets.token_hex(16)
    if agent is not None:
        return Passwords(server=server, agent=agent.password)
    kept = stored is not None and given is None
    return Passwords(server=server, agent=stored.agent if stored and kept else server)


async def _bootstrapped(options: Options, url: str, token: Token) -> Supervisor:
    """Check the cluster's CA and take its authorities, byte for byte; raises Exit."""
    prefix = "failed to bootstrap cluster data: "
    try:
        supervisor = await Supervisor.trust(url, token)
        answer = await supervisor.ask("/v1-k3s/server-bootstrap", user="server")
    except Untrusted as error:
        step = "failed to check if bootstrap data has been initialized: failed to validate token: "
        raise fatal(f"{prefix}{step}{error}") from error
    except Unreachable as error:
        raise fatal(f"{prefix}{error}") from error
    if answer.status != 200:
        raise fatal(prefix + refusal(answer))
    pki.take_bootstrap(options.layout.tls, answer.body)
    return supervisor


async def _compare_config(options: Options, url: str, token: Token) -> None:
    """Compare the flags that must be equal on all servers; raises Exit."""
    prefix = "failed to validate server configuration: "
    try:
        supervisor = await Supervisor.trust(url, token)
        answer = await supervisor.ask("/v1-k3s/config", user="node")
    except (Untrusted, Unreachable) as error:
        raise fatal(prefix + str(error)) from error
    if answer.status != 200:
        raise fatal(prefix + refusal(answer))
    theirs = answer.json()
    different = [name for name, value in options.critical.items() if theirs.get(name) != value]
    if different:
        log("warning", f"critical configuration mismatched: {', '.join(different)}")
        raise fatal(f"{prefix}critical configuration value mismatch between servers")


@asynccontextmanager
async def _listening(options: Options, api: Api) -> AsyncIterator[None]:
    """Answer on 6443, and hold 6444 as k3s' own API server does."""
    try:
        listener = listen(options.port)
    except OSError as error:
        problem = f"listen tcp :{options.port}: bind: address already in use"
        raise fatal(f"failed to listen: {problem}") from error
    folder = options.layout.tls
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(
        folder / "serving-kube-apiserver.crt", folder / "serving-kube-apiserver.key"
    )
    tls.load_verify_locations(folder / "client-ca.crt")
    tls.verify_mode = ssl.CERT_OPTIONAL
    inner = Balancer(f"127.0.0.1:{options.port}", None)
    # Closed, and no more: since Python 3.12.1 `async with` would wait until the last client hangs
    # up, and a server whose API fails must end at once.
    with closing(await inner.listen()), closing(await serve(listener, tls, api)):
        await asyncio.sleep(_STARTING_S)
        api.routed = True
        yield


@asynccontextmanager
async def _etcd(
    options: Options, seat: Seat, supervisor: Supervisor | None
) -> AsyncIterator[EtcdProcess]:
    """Run etcd: from its log, joined to the supervisor's cluster, or as a new cluster."""
    new = False
    cluster = seat.cluster_part
    if options.layout.wal.is_dir():
        log("info", "Starting etcd for existing cluster member")
    elif supervisor is not None:
        cluster = await join(options.layout, seat, supervisor)
        log("info", f"Starting etcd to join cluster with members [{cluster}]")
    else:
        log("info", "Managed etcd cluster initializing")
        log("info", "Starting etcd for new cluster, cluster-reset=false")
        new = True
    process = await EtcdProcess.start(
        options.layout,
        name=seat.member_name,
        address=seat.address,
        cluster=cluster,
        new=new,
        arguments=options.etcd_args,
    )
    try:
        yield process
    finally:
        await process.stop()


async def _watch_etcd(process: EtcdProcess) -> None:
    code, removed = await process.ended()
    log("error", "etcd exited: server is stopping")
    if not removed:
        # In k3s etcd's panic is the whole program's, with Go's exit code 2.
        raise Exit(2 if code == 2 else 1, "fatal", f"etcd exited with code {code}")
    # As k3s does: stay, without a datastore, until somebody looks.


async def _serve_cluster(options: Options, api: Api, seat: Seat, etcd: Etcd) -> None:
    api.etcd = etcd
    await _until_voting(etcd)
    objects = Objects(etcd)
    await objects.first_namespaces()
    caretaker = Caretaker(seat, etcd, objects, has_node=not options.disable_agent)
    api.node_gone = caretaker.node_gone
    api.objects = objects
    log("info", "k3s is up and running")
    note(f"{VERSION}: API ready on node {options.node_name}")
    async with asyncio.TaskGroup() as group:
        group.create_task(_keep_leadership(etcd))
        group.create_task(_announce(etcd, seat, options.port))
        group.create_task(apply_manifests(objects, options.layout.manifests))
        group.create_task(caretaker.run(options.layout))
        if not options.disable_agent:
            group.create_task(_run_own_agent(options))
            pods = options.layout.static_pods
            group.create_task(play_kube_vip(objects, pods, options.node_name))


async def _until_voting(etcd: Etcd) -> None:
    """Wait until this member votes and a majority answers, however long."""
    told = ""
    while True:
        try:
            if not (await etcd.status()).learner:
                await etcd.get("health")
                return
            problem = "this member is still a learner"
        except EtcdError as error:
            problem = str(error)
        if problem != told:
            log("info", f"Failed to test etcd connection: {problem}")
            told = problem
        await asyncio.sleep(_VOTING_POLL_S)


async def _keep_leadership(etcd: Etcd) -> None:
    """End as k3s' controllers do when they cannot renew their lease; raises Exit."""
    answered_at = time.monotonic()
    while True:
        try:
            await etcd.get("health")
            answered_at = time.monotonic()
        except EtcdError as error:
            log("error", f"Failed to test etcd connection: {error}")
            silent_s = time.monotonic() - answered_at
            if silent_s > _LEADERSHIP_LOST_AFTER_S:
                raise fatal("leaderelection lost") from error
        await asyncio.sleep(_PROBE_INTERVAL_S)


async def _announce(etcd: Etcd, seat: Seat, port: int) -> None:
    """Keep this server in the list of API servers; the entry ends soon after the server does."""
    host = f"[{seat.address}]" if ":" in seat.address else seat.address
    while True:
        try:
            await etcd.put(
                APISERVERS + seat.address, f"{host}:{port}".encode(), lease_s=_ANNOUNCE_LEASE_S
            )
        except EtcdError as error:
            log("warning", f"Failed to announce this API server: {error}")
        await asyncio.sleep(_ANNOUNCE_INTERVAL_S)


async def _run_own_agent(options: Options) -> None:
    passwords = tokens.stored_passwords(options.layout)
    assert passwords is not None
    url = f"https://127.0.0.1:{options.port}"
    ca = (options.layout.tls / "server-ca.crt").read_bytes()
    agent = Agent(
        layout=options.layout,
        facts=node_facts(options, server=True),
        token=Token(ca_hash=tokens.ca_hash(ca), user="node", password=passwords.agent),
        balancer=None,
        shown_url=url,
    )
    await agent.run(url)
