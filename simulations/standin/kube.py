"""The few Kubernetes resources that the stand-in offers: objects as JSON values in etcd.

An object's resourceVersion is the etcd revision of its last change, as in Kubernetes, so that two
writers cannot overwrite each other unseen.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from simulations.standin.etcd import Etcd, KeyValue

Fields = dict[str, Any]

_NODE_LEASES = "kube-node-lease"
_FIRST_NAMESPACES = ("default", "kube-system", "kube-public", _NODE_LEASES)


class Refused(Exception):
    """A request that Kubernetes refuses: HTTP code, its one-word reason, a sentence."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object and where it is served."""

    version: str
    kind: str
    plural: str
    namespaced: bool


_CLUSTER, _NAMESPACED = False, True
KINDS = (
    Kind("v1", "Namespace", "namespaces", _CLUSTER),
    Kind("v1", "Node", "nodes", _CLUSTER),
    Kind("v1", "ConfigMap", "configmaps", _NAMESPACED),
    Kind("v1", "Event", "events", _NAMESPACED),
    Kind("v1", "Secret", "secrets", _NAMESPACED),
    Kind("v1", "ServiceAccount", "serviceaccounts", _NAMESPACED),
    Kind("v1", "Service", "services", _NAMESPACED),
    Kind("v1", "Pod", "pods", _NAMESPACED),
    Kind("apps/v1", "DaemonSet", "daemonsets", _NAMESPACED),
    Kind("apps/v1", "Deployment", "deployments", _NAMESPACED),
    Kind("coordination.k8s.io/v1", "Lease", "leases", _NAMESPACED),
    Kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", _CLUSTER),
    Kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", _CLUSTER),
    Kind("rbac.authorization.k8s.io/v1", "Role", "roles", _NAMESPACED),
    Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", _NAMESPACED),
)
_BY_PLURAL = {(kind.version, kind.plural): kind for kind in KINDS}
_BY_KIND = {(kind.version, kind.kind): kind for kind in KINDS}

NODE = _BY_KIND["v1", "Node"]
NAMESPACE = _BY_KIND["v1", "Namespace"]
LEASE = _BY_KIND["coordination.k8s.io/v1", "Lease"]
DAEMON_SET = _BY_KIND["apps/v1", "DaemonSet"]


def kind_served_at(version: str, plural: str) -> Kind:
    """Return the kind behind a URL; raises Refused if there is none."""
    kind = _BY_PLURAL.get((version, plural))
    if kind is None:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    return kind


def kind_of(fields: Fields) -> Kind | None:
    """Return the kind that an object says it is, or None if the stand-in does not offer it."""
    return _BY_KIND.get((str(fields.get("apiVersion")), str(fields.get("kind"))))


def stamp(*, micro: bool = False) -> str:
    """Return the time as Kubernetes writes it; `micro` as in leases."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


class Objects:
    """All objects of one cluster; every call may raise Refused or EtcdError."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd

    async def first_namespaces(self) -> None:
        """Make what is missing of the namespaces that a new cluster starts with."""
        for name in _FIRST_NAMESPACES:
            key = _key(NAMESPACE, "", name)
            if await self._etcd.get(key) is None:
                fields = {"metadata": {"name": name}, "status": {"phase": "Active"}}
                await self._etcd.swap(key, _new(NAMESPACE, "", fields), revision=0)

    async def get(self, kind: Kind, namespace: str, name: str) -> Fields:
        """Return one object; raises Refused 404."""
        found = await self._etcd.get(_key(kind, namespace, name))
        if found is None:
            raise Refused(404, "NotFound", f'{kind.plural} "{name}" not found')
        return (await self._shown(kind, [found]))[0]

    async def find(
        self, kind: Kind, namespace: str = "", *, local: bool = False, chosen: str = ""
    ) -> Fields:
        """Return a list object; `chosen` is a label selector, `local` may be out of date."""
        revision, found = await self._etcd.below(_key(kind, namespace, ""), local=local)
        items = [fields for fields in await self._shown(kind, found) if _matches(fields, chosen)]
        return {
            "kind": f"{kind.kind}List",
            "apiVersion": kind.version,
            "metadata": {"resourceVersion": str(revision)},
            "items": items,
        }

    async def create(self, kind: Kind, namespace: str, fields: Fields) -> Fields:
        """Store a new object; raises Refused 409 if there is one of that name."""
        metadata = fields.setdefault("metadata", {})
        if "name" not in metadata and "generateName" in metadata:
            metadata["name"] = metadata["generateName"] + os.urandom(3).hex()[:5]
        name = metadata.get("name")
        if not name:
            raise Refused(422, "Invalid", "metadata.name: Required value: name is required")
        if kind.namespaced:
            await self.get(NAMESPACE, "", namespace)
        value = _new(kind, namespace, fields)
        key = _key(kind, namespace, name)
        revision = await self._etcd.swap(key, value, revision=0)
        if revision is None:
            raise Refused(409, "AlreadyExists", f'{kind.plural} "{name}" already exists')
        return _with_revision(KeyValue(key=key, value=value, revision=revision))

    async def update(self, kind: Kind, namespace: str, name: str, fields: Fields) -> Fields:
        """Replace an object; raises Refused 409 if its resourceVersion is an older one."""
        given = fields.get("metadata", {}).get("resourceVersion")

        def replaced(old: Fields) -> Fields:
            if given and given != old["metadata"]["resourceVersion"]:
                raise Refused(409, "Conflict", _conflict(kind, name))
            kept = {k: old["metadata"][k] for k in ("uid", "creationTimestamp")}
            return {**fields, "metadata": {**fields.get("metadata", {}), **kept}}

        return await self.change(kind, namespace, name, replaced)

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Fields) -> Fields:
        """Apply a JSON merge patch (RFC 7396): lists are replaced whole."""
        return await self.change(kind, namespace, name, lambda old: merged(old, patch))

    async def change(
        self, kind: Kind, namespace: str, name: str, alter: Callable[[Fields], Fields]
    ) -> Fields:
        """Replace an object by `alter` of it, again if somebody else wrote meanwhile."""
        key = _key(kind, namespace, name)
        for _ in range(5):
            found = await self._etcd.get(key)
            if found is None:
                raise Refused(404, "NotFound", f'{kind.plural} "{name}" not found')
            old = _with_revision(found)
            fields = alter(old)
            if fields == old:
                return old
            value = _stored(kind, namespace, fields)
            revision = await self._etcd.swap(key, value, revision=found.revision)
            if revision is not None:
                return _with_revision(KeyValue(key=key, value=value, revision=revision))
        raise Refused(409, "Conflict", _conflict(kind, name))

    async def delete(self, kind: Kind, namespace: str, name: str) -> Fields:
        """Delete an object and return what it was; raises Refused 404."""
        old = await self.get(kind, namespace, name)
        if not await self._etcd.delete(_key(kind, namespace, name)):
            raise Refused(404, "NotFound", f'{kind.plural} "{name}" not found')
        return old

    async def _shown(self, kind: Kind, found: list[KeyValue]) -> list[Fields]:
        objects = [_with_revision(item) for item in found]
        if kind is NODE:
            _, leases = await self._etcd.below(_key(LEASE, _NODE_LEASES, ""))
            renewed = {
                item.key.rpartition("/")[2]: json.loads(item.value)["spec"]["renewTime"]
                for item in leases
            }
            for node in objects:
                _judge_silence(node, renewed.get(node["metadata"]["name"], ""))
        return objects


def merged(old: Any, patch: Any) -> Any:
    """Return `old` with the merge patch applied (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def with_condition(node: Fields, kind: str, status: str, reason: str, message: str) -> Fields:
    """Return the node with one condition set; the same node if it says so already."""
    before = node.get("status", {}).get("conditions", [])
    if any(c["type"] == kind and c["status"] == status for c in before):
        return node
    condition = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": stamp(),
        "lastTransitionTime": stamp(),
    }
    conditions = [*(c for c in before if c["type"] != kind), condition]
    return {**node, "status": {**node.get("status", {}), "conditions": conditions}}


def _judge_silence(node: Fields, renewed: str) -> None:
    """Turn `Ready` to Unknown when the node's lease is too old; k8s' node controller writes it."""
    grace = timedelta(seconds=float(os.environ.get("STANDIN_NODE_GRACE_S", "50")))
    if renewed and datetime.now(UTC) - datetime.fromisoformat(renewed) <= grace:
        return
    for condition in node.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            condition["status"] = "Unknown"
            condition["reason"] = "NodeStatusUnknown"
            condition["message"] = "Kubelet stopped posting node status."


def _matches(fields: Fields, selector: str) -> bool:
    """Judge a label selector of the forms `a=b`, `a==b`, `a!=b`, `a`, `!a`, joined by commas."""
    labels: Mapping[str, str] = fields["metadata"].get("labels") or {}
    for term in filter(None, (part.strip() for part in selector.split(","))):
        key, unequal, value = term.partition("!=")
        if unequal:
            fits = labels.get(key) != value
        elif term.startswith("!"):
            fits = term[1:] not in labels
        else:
            key, equal, value = term.partition("=")
            fits = labels.get(key) == value.lstrip("=") if equal else key in labels
        if not fits:
            return False
    return True


def _key(kind: Kind, namespace: str, name: str) -> str:
    return f"/registry/{kind.plural}/" + (f"{namespace}/" if namespace else "") + name


def _new(kind: Kind, namespace: str, fields: Fields) -> bytes:
    origin = {"uid": str(uuid.uuid4()), "creationTimestamp": stamp()}
    metadata = {**fields.get("metadata", {}), **origin}
    return _stored(kind, namespace, {**fields, "metadata": metadata})


def _stored(kind: Kind, namespace: str, fields: Fields) -> bytes:
    place = {"namespace": namespace} if kind.namespaced else {}
    metadata = {**fields["metadata"], **place}
    metadata.pop("resourceVersion", None)
    return json.dumps(
        {**fields, "apiVersion": kind.version, "kind": kind.kind, "metadata": metadata}
    ).encode()


def _with_revision(found: KeyValue) -> Fields:
    fields: Fields = json.loads(found.value)
    fields["metadata"]["resourceVersion"] = str(found.revision)
    return fields


def _conflict(kind: Kind, name: str) -> str:
    return (
        f'Operation cannot be fulfilled on {kind.plural} "{name}": the object has been modified;'
        " please apply your changes to the latest version and try again"
    )
