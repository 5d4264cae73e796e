"""Every check of a run by name: mutants must make each of them fire, or it is reported as weak."""

from __future__ import annotations

CHECKS = {
    "S1 one cluster-init in a generation": "clusters started in generation",
    "S2 one decision in a slot": "two decisions in slot",
    "S3a one generation forms": "S3a: DONE in generations",
    "S3b no generation before the last one is over": "S3b: a decision of generation",
    "S4 no abandoned k3s beside a later one": "S4: k3s of generation",
    "S5 no secret of another cluster": "S5: the secrets of cluster",
    "formed after healing": "after healing",
    "a vote is on the disk before it is seen": "that is not on its disk",
    "what is over for good is on the disk before it is said": "for good, and its disk does not",
    "a record has a quorum's votes": "make a quorum",
    "nobody is ordered to leave": "is ordered to leave its cluster",
    "formed only after DONE": "has an order for a formed cluster before DONE",
    "a lease before DONE": "is ordered to run k3s without a lease before DONE",
    "who gave up stays down": "up, and is ordered to go on",
    "given up for its own k3s only": "up for what k3s of another did",
    "what is abandoned is not run": "is ordered to run what is abandoned",
    "workers only after DONE": "is ordered to be a worker before DONE",
    "an order to start only after STARTED": "is ordered to start a cluster before STARTED",
    "nobody joins itself or the VIP": "is to join itself or the VIP",
    "who joins knows whom": "is to join, and not told whom",
    "no k3s with a clock never set": "whose clock was never set",
    "no k3s with a refuted clock": "voters refute",
    "no secret before CLAIM": " before CLAIM",
    "no secret outside the plan before DONE": "no member of the plan, before DONE",
    "no server token for workers": ", a worker",
    "a start only after STARTED": "started a cluster before STARTED was decided",
    "a start only by the initialiser": "started a cluster that CLAIM does not give it",
    "a start only by who meant it": "without its intent on its disk",
    "DONE only of a cluster": " without a cluster",
    "DONE with enough etcd voters": "are needed",
    "DONE names the cluster": "DONE does not name the cluster that exists",
    "DONE names members of the plan": "of the voters in DONE are members",
    "nobody honest is rejected": " rejects ",
}
"""Its name, and the words that nothing but its message has."""


def check_of(failure: str) -> str | None:
    """Return the name of the check whose message this is, if it is any's."""
    return next((name for name, words in CHECKS.items() if words in failure), None)
