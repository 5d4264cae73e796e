"""Kubernetes objects that meshd gives a formed cluster: kube-vip, and the mark of the cluster.

Invariant: equal settings give equal bytes on every server, so that k3s, which applies the files of
each server, has nothing to change. The shape follows `kube-vip manifest daemonset` and
`kube-vip manifest rbac` of kube-vip 1.2.
"""

from __future__ import annotations

from typing import Any

import yaml

from meshd.cluster.paths import API_PORT
from meshd.config.schema import KubeVip
from roles import ClusterPlan

LEASE_NAMESPACE = "kube-system"
LEASE_NAME = "plndr-cp-lock"

Manifest = dict[str, Any]
"""One Kubernetes object as YAML has it."""


def cluster_mark(plan: ClusterPlan) -> bytes:
    """Return the ConfigMap that tells this cluster from any other."""
    return _render(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "meshd-cluster", "namespace": LEASE_NAMESPACE},
            "data": {"cluster_id": plan.cluster_id, "generation": str(plan.generation)},
        }
    )


def kube_vip_daemon_set(settings: KubeVip, interface: str | None) -> bytes:
    """Return kube-vip for all control-plane nodes: account, role, binding, DaemonSet.

    Args:
        settings: `kubevip.*`.
        interface: where the address goes, the same on all nodes; None lets kube-vip take the one
            with the default route.
    """
    labels = {"app.kubernetes.io/name": "kube-vip", "app.kubernetes.io/managed-by": "meshd"}
    pod = _pod_spec(settings, interface) | {
        "serviceAccountName": "kube-vip",
        "tolerations": [
            {"effect": "NoSchedule", "operator": "Exists"},
            {"effect": "NoExecute", "operator": "Exists"},
        ],
        "affinity": {"nodeAffinity": _CONTROL_PLANE_ONLY},
    }
    # Of this node's own server, not the service's address behind which any server may be: a
    # connection to one that was cut off is found dead only after 45 s (seen), and meanwhile no
    # healthy server's kube-vip can take the address.
    pod["containers"][0]["env"] += [
        {"name": "KUBERNETES_SERVICE_HOST", "value": "127.0.0.1"},
        {"name": "KUBERNETES_SERVICE_PORT", "value": str(API_PORT)},
    ]
    daemon_set = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kube-vip", "namespace": LEASE_NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    return _render(_SERVICE_ACCOUNT, _CLUSTER_ROLE, _BINDING, daemon_set)


def kube_vip_static_pod(settings: KubeVip, interface: str | None, kubeconfig: str) -> bytes:
    """Return kube-vip as a static pod of one node, for machines whose interfaces differ.

    Args:
        settings: `kubevip.*`.
        interface: of this node.
        kubeconfig: path of the administrator's kubeconfig on this node; a static pod has no
            service account.
    """
    pod = _pod_spec(settings, interface)
    container = pod["containers"][0]
    container["volumeMounts"] = [
        {"name": "kubeconfig", "mountPath": "/etc/kubernetes/admin.conf", "readOnly": True}
    ]
    # The name that kube-vip gives this node's own server where it finds that kubeconfig.
    pod["hostAliases"] = [{"hostnames": ["kubernetes"], "ip": "127.0.0.1"}]
    pod["volumes"] = [{"name": "kubeconfig", "hostPath": {"path": kubeconfig, "type": "File"}}]
    return _render(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "kube-vip", "namespace": LEASE_NAMESPACE},
            "spec": pod,
        }
    )


def _pod_spec(settings: KubeVip, interface: str | None) -> Manifest:
    users = dict(settings.variables)
    variables = {
        # With services on, kube-vip takes over node addresses that k3s' own balancer publishes
        # (kube-vip issue 1288): off unless it was asked for and does not meet that balancer.
        "svc_enable": "false",
        "lb_enable": "false",
    }
    variables |= users
    variables |= {
        "address": settings.address,
        "port": str(API_PORT),
        "vip_arp": "true",
        "vip_subnet": "128" if ":" in settings.address else "32",
        "cp_enable": "true",
        "cp_namespace": LEASE_NAMESPACE,
        "vip_leaderelection": "true",
        "vip_leasename": LEASE_NAME,
        "vip_leaseduration": str(settings.lease_duration_s),
        "vip_renewdeadline": str(settings.renew_deadline_s),
        "vip_retryperiod": str(settings.retry_period_s),
    }
    if interface is not None:
        variables["vip_interface"] = interface
    environment: list[Manifest] = [
        {"name": name, "value": value} for name, value in sorted(variables.items())
    ]
    environment.append(
        {"name": "vip_nodename", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    )
    container = {
        "name": "kube-vip",
        "image": settings.reference,
        "imagePullPolicy": "IfNotPresent",
        "args": ["manager"],
        "env": environment,
        "securityContext": {"privileged": True}
        if users.get("lb_fwdmethod") == "masquerade"
        else {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}},
    }
    return {
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "containers": [container],
    }


def _render(*objects: Manifest) -> bytes:
    return yaml.safe_dump_all(objects, sort_keys=True, explicit_start=True).encode()


_CONTROL_PLANE_ONLY: Manifest = {
    "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": f"node-role.kubernetes.io/{role}", "operator": "Exists"}]}
            for role in ("control-plane", "master")
        ]
    }
}
_SERVICE_ACCOUNT: Manifest = {
    "apiVersion": "v1",
    "kind": "ServiceAccount",
    "metadata": {"name": "kube-vip", "namespace": LEASE_NAMESPACE},
}
_CLUSTER_ROLE: Manifest = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "system:kube-vip-role"},
    "rules": [
        {"apiGroups": [""], "resources": ["services/status"], "verbs": ["update"]},
        {"apiGroups": [""], "resources": ["services", "endpoints"],
         "verbs": ["list", "get", "watch", "update"]},
        {"apiGroups": [""], "resources": ["nodes"],
         "verbs": ["list", "get", "watch", "update", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
         "verbs": ["list", "get", "watch", "update", "create"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
         "verbs": ["list", "get", "watch", "update"]},
    ],
}  # fmt: skip
_BINDING: Manifest = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "system:kube-vip-binding"},
    "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "system:kube-vip-role",
    },
    "subjects": [{"kind": "ServiceAccount", "name": "kube-vip", "namespace": LEASE_NAMESPACE}],
}
