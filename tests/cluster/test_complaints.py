from __future__ import annotations

import pytest

from meshd.cluster.complaints import complaint_in, exit_complaint, message_of, redacted

HOPELESS = {
    "belongs to another cluster": (
        'time="T" level=fatal msg="Error: preparing server: token CA hash does not match the '
        'Cluster CA certificate hash: ffff != c105"'
    ),
    "refused this node's token": (
        'time="T" level=fatal msg="failed to bootstrap cluster data: not authorized"'
    ),
    "the server refused": (
        'time="T" level=info msg="Waiting to retrieve agent configuration; server is not ready: '
        'failed to retrieve configuration from server: not authorized"'
    ),
    "still lists a member": (
        'time="T" level=error msg="Shutdown request received: etcd cluster join failed: duplicate '
        'node name found, please use a unique name for this node"'
    ),
    "knows another machine": (
        'time="T" level=info msg="...: Node password rejected, duplicate hostname or contents"'
    ),
    "differ from the cluster's in ClusterIPRanges.slice[0].IP.slice[13]": (
        'level=warning msg="critical configuration mismatched: '
        'ClusterIPRanges.slice[0].IP.slice[13]"'
    ),
    "0.0.0.0:10250 is in use": (
        'E1 "Failed to listen and serve" '
        'err="listen tcp 0.0.0.0:10250: bind: address already in use"'
    ),
    "was removed from etcd": (
        '{"level":"error","msg":"the member has been permanently removed from the cluster"}'
    ),
    "the disk is full": "write /x: no space left on device",
    "cannot be run: /x: Permission denied": "meshd: cannot run /x: Permission denied",
}
PASSING = {
    "https://10.0.0.11:6443 does not answer: connection refused": (
        'level=fatal msg="Error: failed to validate token: failed to get CA certs: Get '
        '\\"https://10.0.0.11:6443/cacerts\\": dial tcp 10.0.0.11:6443: '
        'connect: connection refused"'
    ),
    "server to join is still starting": (
        "Error: preparing server: failed to validate token: failed to get CA certs: starting"
    ),
    "one at a time": 'level=info msg="Waiting: etcdserver: too many learner members in cluster"',
}


@pytest.mark.parametrize("words", HOPELESS)
def test_a_complaint_that_does_not_pass_by_itself_is_known(words: str) -> None:
    found = complaint_in(["noise", HOPELESS[words], "noise"])
    assert found is not None
    assert words in found.sentence
    assert found.hopeless


@pytest.mark.parametrize("words", PASSING)
def test_a_complaint_that_passes_is_known(words: str) -> None:
    found = complaint_in([PASSING[words]])
    assert found is not None
    assert words in found.sentence
    assert not found.hopeless


def test_the_key_that_differs_is_named_although_the_last_line_does_not() -> None:
    lines = (
        'level=warning msg="critical configuration mismatched: FlannelBackend"',
        'level=fatal msg="critical configuration value mismatch between servers"',
    )
    assert "FlannelBackend" in exit_complaint(1, None, lines).sentence


def test_exit_code_0_is_no_success_and_unknown_last_words_are_quoted() -> None:
    lines = ('level=error msg="something \\"new\\""', "level=info msg=bye")
    complaint = exit_complaint(0, None, lines)
    assert complaint.sentence == 'k3s ended with code 0, saying: something "new"'
    assert not complaint.hopeless


def test_a_signal_is_named_whatever_was_said_before() -> None:
    assert exit_complaint(None, 9, ("hello",)).sentence == "k3s was ended by signal 9"


def test_log_lines_of_all_kinds_give_their_message() -> None:
    assert message_of('{"level":"panic","msg":"failed","error":"no"}') == "failed no"
    assert message_of("{broken") == "{broken"
    assert message_of("plain") == "plain"


@pytest.mark.parametrize(
    ("words", "secret"),
    [
        (f"bad token K10{'ab' * 32}::server:hunter2", "hunter2"),
        (f"cannot use {'0f' * 32}", "0f0f"),
        ("token abcdef.0123456789abcdef expired", "0123456789abcdef"),
        ("dial mysql://root:hunter2@10.0.0.9/k3s", "hunter2"),
        ("flag --token=hunter2 is odd", "hunter2"),
    ],
)
def test_what_is_quoted_holds_no_secret(words: str, secret: str) -> None:
    sentence = exit_complaint(1, None, (f'level=fatal msg="{words}"',)).sentence
    assert secret not in sentence
    assert "…" in sentence


def test_what_is_quoted_is_otherwise_as_k3s_said_it() -> None:
    said = "starting kubernetes: preparing server: https://10.0.0.11:6443 refused n1-0a1b2c3d"
    assert redacted(said) == said
