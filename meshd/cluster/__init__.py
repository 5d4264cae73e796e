"""k3s and kube-vip on this node: what they are told, how they are run, what they say themselves."""

from meshd.cluster.keeper import K3sCluster
from meshd.cluster.kubevip import is_here
from meshd.cluster.paths import API_PORT, SERVER_PORTS, K3sPaths
from meshd.cluster.secrets import Candidacy, CandidateSecrets, prepare_secrets

__all__ = [
    "API_PORT",
    "SERVER_PORTS",
    "Candidacy",
    "CandidateSecrets",
    "K3sCluster",
    "K3sPaths",
    "is_here",
    "prepare_secrets",
]
