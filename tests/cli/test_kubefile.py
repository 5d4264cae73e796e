"""Merging a kubeconfig: ours comes in, everybody else's stays to the letter."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshd.cli import kubefile
from meshd.cli.kubefile import Access, Taken, Unreadable


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


OURS = Access(
    name="meshd-oak-7f3a9c12",
    server="https://10.0.0.50:6443",
    authority=encoded("our authority"),
    certificate=encoded("certificate"),
    key=encoded("private key"),
)
OTHERS = """apiVersion: v1
kind: Config
clusters:
- cluster:
    insecure-skip-tls-verify: true
    server: https://192.0.2.1:6443
  name: home
contexts:
- context:
    cluster: home
    namespace: "on"
    user: home
  name: home
current-context: home
users:
- name: home
  user:
    token: 0123_456
    extra: 1e3
    exec:
      args: [a, 'b: c', "2001-01-01", 2001-01-01]
      since: 1:30
preferences:
  colors: yes
"""


def k3s_file(authority: str = OURS.authority) -> str:
    """What k3s v1.34.1 writes to /etc/rancher/k3s/k3s.yaml."""
    return f"""apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {authority}
    server: https://127.0.0.1:6443
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
users:
- name: default
  user:
    client-certificate-data: {OURS.certificate}
    client-key-data: {OURS.key}
"""


def merged(text: str, access: Access = OURS, **how: bool) -> str:
    return kubefile.merged(
        text, access, force=how.get("force", False), set_current=how.get("set_current", False)
    )


def entry(text: str, kind: str, name: str = OURS.name) -> dict[str, object]:
    (found,) = [one for one in yaml.safe_load(text)[kind] if one["name"] == name]
    assert isinstance(found, dict)
    return found


def test_what_k3s_wrote_comes_out_under_the_networks_name_and_by_our_server() -> None:
    access = kubefile.read_access(k3s_file(), name=OURS.name, server=OURS.server)
    assert access == OURS
    text = kubefile.fresh(access, ["https://10.0.0.11:6443", "https://10.0.0.12:6443"])
    assert text.startswith(
        "# Other servers of this cluster: https://10.0.0.11:6443 https://10.0.0.12:6443\n"
    )
    assert "127.0.0.1" not in text
    assert "default" not in text
    content = yaml.safe_load(text)
    assert (content["apiVersion"], content["kind"]) == ("v1", "Config")
    assert content["current-context"] == OURS.name
    assert entry(text, "contexts")["context"] == {"cluster": OURS.name, "user": OURS.name}
    assert entry(text, "clusters")["cluster"] == {
        "certificate-authority-data": OURS.authority,
        "server": OURS.server,
    }
    assert entry(text, "users")["user"] == {
        "client-certificate-data": OURS.certificate,
        "client-key-data": OURS.key,
    }
    assert OURS.key not in repr(OURS)


def test_entries_of_others_stay_to_the_letter() -> None:
    text = merged(OTHERS)
    for line in OTHERS.splitlines():
        assert line in text.splitlines(), line
    assert yaml.safe_load(text)["current-context"] == "home"
    assert entry(text, "clusters")["cluster"]
    assert len(yaml.safe_load(text)["users"]) == 2


def test_merging_again_changes_nothing_and_a_new_server_only_that() -> None:
    once = merged(OTHERS)
    assert merged(once) == once
    moved = merged(once, replace(OURS, server="https://10.0.0.11:6443"))
    assert moved == once.replace(OURS.server, "https://10.0.0.11:6443")


def test_the_current_context_stays_unless_there_is_none_or_it_is_asked_for() -> None:
    assert kubefile.current_context(merged(OTHERS)) == "home"
    assert kubefile.current_context(merged(OTHERS, set_current=True)) == OURS.name
    for none in ("", "current-context: ''\n", "current-context: null\n", "current-context:\n"):
        text = OTHERS.replace("current-context: home\n", none)
        assert kubefile.current_context(merged(text)) == OURS.name


def test_a_namespace_that_somebody_chose_for_our_context_stays() -> None:
    chosen = yaml.safe_load(merged(OTHERS))
    chosen["contexts"][1]["context"]["namespace"] = "shop"
    text = merged(yaml.safe_dump(chosen), replace(OURS, server="https://10.0.0.11:6443"))
    assert entry(text, "contexts")["context"] == {
        "cluster": OURS.name,
        "user": OURS.name,
        "namespace": "shop",
    }


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing yet\n", "{}", "apiVersion: v1\nclusters: []\n"]
)
def test_an_empty_file_becomes_a_kubeconfig_of_ours(text: str) -> None:
    content = yaml.safe_load(merged(text))
    assert content["current-context"] == OURS.name
    assert [len(content[kind]) for kind in kubefile.LISTS] == [1, 1, 1]


def test_lists_that_are_null_or_in_one_line_are_added_to() -> None:
    text = merged("clusters: null\ncontexts: []\nusers: [{name: a, user: {token: x}}]\n")
    content = yaml.safe_load(text)
    assert [one["name"] for one in content["users"]] == ["a", OURS.name]
    assert len(content["clusters"]) == len(content["contexts"]) == 1


def test_the_name_of_another_cluster_is_not_taken_without_force() -> None:
    other = merged(
        OTHERS, replace(OURS, authority=encoded("another"), server="https://192.0.2.9:1")
    )
    with pytest.raises(Taken, match=r"cluster at https://192\.0\.2\.9:1 with another authority"):
        merged(other)
    forced = merged(other, force=True)
    assert entry(forced, "clusters")["cluster"] == entry(merged(OTHERS), "clusters")["cluster"]
    assert entry(forced, "clusters", "home") == entry(OTHERS, "clusters", "home")


def test_a_user_or_context_of_that_name_alone_is_not_taken_either() -> None:
    text = f"users:\n- name: {OURS.name}\n  user: {{token: mine}}\n"
    with pytest.raises(Taken, match="stands among users, without its cluster"):
        merged(text)
    assert entry(merged(text, force=True), "users")["user"] != {"token": "mine"}


def test_the_same_authority_in_another_writing_is_the_same_cluster() -> None:
    folded = OURS.authority[:4] + "\n      " + OURS.authority[4:]
    text = merged(OTHERS).replace(OURS.authority, f"|\n      {folded}")
    assert "|" in text
    assert (
        entry(merged(text), "clusters")["cluster"] == entry(merged(OTHERS), "clusters")["cluster"]
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("clusters: [", "line 1: "),
        ("a: 1\n b: 2\n", "line 2: "),
        ("- a\n- b\n", "it is no YAML mapping"),
        ("hello", "it is no YAML mapping"),
        ("kind: Pod\n", "it is of kind 'Pod', not Config"),
        ("apiVersion: v1\nclusters: {}\n", "line 2: clusters is no list"),
        ("users:\n- user: {}\n", "line 2: an entry of users has no name"),
        ("contexts:\n- text\n", "line 2: an entry of contexts has no name"),
        ("a: 1\n---\nb: 2\n", "line 2: "),
        ("a: \x00", "it holds characters that YAML does not allow"),
        ("a: !!python/object:os.system x\nclusters: 3", "line 2: clusters is no list"),
    ],
)
def test_what_is_no_kubeconfig_is_refused_with_the_place(text: str, why: str) -> None:
    with pytest.raises(Unreadable) as caught:
        merged(text)
    assert str(caught.value).startswith(why)
    with pytest.raises(Unreadable):
        kubefile.is_only(text, OURS)


@pytest.mark.parametrize(
    "missing", ["certificate-authority-data", "client-certificate-data", "client-key-data"]
)
def test_a_file_of_k3s_without_what_it_takes_is_refused(missing: str) -> None:
    text = "\n".join(line for line in k3s_file().splitlines() if missing not in line)
    with pytest.raises(Unreadable, match=f"it has no {missing}"):
        kubefile.read_access(text, name=OURS.name, server=OURS.server)


def test_a_file_that_holds_this_cluster_alone_may_be_replaced_whole() -> None:
    own = kubefile.fresh(OURS, ["https://10.0.0.11:6443"])
    assert kubefile.is_only(own, OURS)
    assert kubefile.is_only("", OURS)
    assert not kubefile.is_only(own, replace(OURS, authority=encoded("another")))
    assert not kubefile.is_only(merged(OTHERS), OURS)
    assert not kubefile.is_only(OTHERS, OURS)


def test_what_cannot_be_written_again_as_it_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    written = kubefile._written
    monkeypatch.setattr(kubefile, "_written", lambda root: written(root).replace("1e3", "1000.0"))
    with pytest.raises(Unreadable, match="cannot be written again as it is"):
        merged(OTHERS)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=12), st.floats(allow_nan=False)
)
VALUES = st.recursive(
    SCALARS,
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=6), below, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=8), VALUES, max_size=3), max_size=4), VALUES)
def test_whatever_others_have_is_there_afterwards(
    bodies: list[dict[str, object]], rest: object
) -> None:
    content = {
        "x-of-somebody": rest,
        "users": [{"name": f"u{n}", "user": body} for n, body in enumerate(bodies)],
    }
    after = yaml.safe_load(merged(yaml.safe_dump(content)))
    assert after["x-of-somebody"] == rest
    assert after["users"][:-1] == content["users"]
    assert after["users"][-1]["name"] == OURS.name
