"""How many may vote: what token and file say together."""

from typing import Literal

import pytest

from meshd.config import Token, encode_token, new_token
from roles import VOTES_MAX, Bounds
from roles._nomination import OPEN_SETTLE_S
from tests.config.loading import Load, codes, refusal


def token_for(machines: int | None) -> str:
    """Return a token for so many machines, as a program without a limit would make it.

    None stands for an EdgeVPN token, which does not say.
    """
    if machines is None:
        return "EDGEVPN"
    made = new_token(control_plane=3, nodes_max=3, seeds=(), random_bytes=bytes)
    bounds = Bounds.bounded(control_plane=3, nodes_max=machines)
    return encode_token(Token(network=made.network, bounds=bounds))


@pytest.mark.parametrize(
    ("keys", "bounds"),
    [
        ("meshd: {nodes_max: 5}", ("bounded", 5, 3, 3)),
        ("meshd: {nodes_max: 9}, minimum_nodes: 6", ("bounded", 9, 6, 3)),
        ("minimum_nodes: 4", ("open", 0, 4, 3)),
        ("minimum_nodes: 8", ("open", 0, 8, 3)),
        ("minimum_nodes: 2", ("open", 0, 3, 3)),
    ],
)
def test_an_edgevpn_token_takes_its_bounds_from_the_file(
    load: Load, keys: str, bounds: tuple[Literal["bounded", "open"], int, int, int]
) -> None:
    settings = load(f"p2p: {{network_token: EDGEVPN, auto: {{ha: {{master_nodes: 2}}}}, {keys}}}")
    bound, nodes_max, quorum, control_plane = bounds
    assert settings.bounds == Bounds(
        bound=bound, nodes_max=nodes_max, quorum=quorum, control_plane=control_plane
    )
    assert ("MESH-1029" in codes(settings)) == (bound == "open")
    assert settings.bounds.nodes_max < 2 * settings.bounds.quorum


def test_of_an_unknown_number_of_machines_one_never_starts_alone(load: Load) -> None:
    settings = load("p2p: {network_token: EDGEVPN}")
    assert settings.bounds == Bounds(bound="open", nodes_max=0, quorum=2, control_plane=1)
    (finding,) = [found for found in settings.findings if found.code == "MESH-1029"]
    assert "of 2 or more a majority starts the cluster" in finding.message
    assert f"no other has appeared for {OPEN_SETTLE_S:.0f} s" in finding.message
    assert "p2p.meshd.nodes_max: 1" in finding.fix


def test_a_join_token_of_an_open_network_leaves_the_number_to_the_file(load: Load) -> None:
    network = new_token(control_plane=1, nodes_max=3, seeds=(), random_bytes=bytes).network
    text = encode_token(Token(network=network, bounds=Bounds.unbounded(control_plane=1)))
    assert load(f"p2p: {{network_token: {text}}}").bounds == Bounds.unbounded(control_plane=1)
    found = load(f"p2p: {{network_token: {text}, meshd: {{nodes_max: 1}}}}").bounds
    assert found == Bounds.bounded(control_plane=1, nodes_max=1)


def test_one_machine_that_is_all_there_is_says_so(load: Load) -> None:
    single = load("p2p: {network_token: EDGEVPN, meshd: {nodes_max: 1}}")
    assert single.bounds == Bounds(bound="bounded", nodes_max=1, quorum=1, control_plane=1)


def test_ha_that_is_off_means_one_control_plane_node(load: Load) -> None:
    settings = load(
        "p2p: {network_token: EDGEVPN, meshd: {nodes_max: 4}, "
        "auto: {ha: {enable: false, master_nodes: 2}}}"
    )
    assert settings.bounds.control_plane == 1


def test_an_even_control_plane_from_a_file_is_taken_and_named(load: Load) -> None:
    settings = load("p2p: {network_token: EDGEVPN, auto: {ha: {master_nodes: 1}}}")
    assert settings.bounds.control_plane == 2
    assert "MESH-1032" in codes(settings)


def test_a_file_may_be_stricter_than_its_token_and_the_quorum_stays(load: Load) -> None:
    settings = load("p2p: {network_token: TOKEN, minimum_nodes: 5, meshd: {nodes_max: 6}}")
    assert settings.bounds == Bounds(bound="bounded", nodes_max=6, quorum=5, control_plane=3)
    assert load("p2p: {network_token: TOKEN, meshd: {nodes_max: 4}}").bounds.quorum == 4


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ("meshd: {nodes_max: 8}", "the file allows 8 machines, the token 7"),
        (
            "auto: {ha: {master_nodes: 4}}",
            "the file asks for a control plane of 5 (the first and 4 more), the token for 3",
        ),
        (
            "auto: {ha: {enable: false}}",
            "the file asks for a control plane of 1 (the first and 0 more), the token for 3",
        ),
    ],
)
def test_a_file_that_contradicts_its_token_is_refused_naming_both(
    load: Load, keys: str, what: str
) -> None:
    error = refusal(load, f"p2p: {{network_token: TOKEN, {keys}}}")
    assert error.code == "MESH-1027"
    assert what in error.what
    assert "c.yaml:2:" in error.what


@pytest.mark.parametrize("keys", ["meshd: {nodes_max: 3}", "minimum_nodes: 8"])
def test_numbers_with_which_nothing_could_form_are_refused(load: Load, keys: str) -> None:
    assert refusal(load, f"p2p: {{network_token: TOKEN, {keys}}}").code == "MESH-1014"


@pytest.mark.parametrize(
    ("machines", "keys"),
    [
        (None, "meshd: {nodes_max: 400}"),
        (None, "minimum_nodes: 201, meshd: {nodes_max: 399}"),
        (None, "minimum_nodes: 201, auto: {ha: {master_nodes: 2}}"),
        (400, "role: auto"),
        (399, "minimum_nodes: 201"),
    ],
)
def test_a_quorum_that_no_record_has_room_for_is_refused(
    load: Load, machines: int | None, keys: str
) -> None:
    error = refusal(load, f"p2p: {{network_token: {token_for(machines)}, {keys}}}")
    assert error.code == "MESH-1017"
    assert "a quorum of 20" in error.what
    assert "c.yaml:2:" in error.what


@pytest.mark.parametrize("machines", [None, 399])
def test_the_largest_network_is_taken(load: Load, machines: int | None) -> None:
    settings = load(
        f"p2p: {{network_token: {token_for(machines)}, auto: {{ha: {{master_nodes: 2}}}}, "
        "meshd: {nodes_max: 399}}"
    )
    assert settings.bounds.quorum == VOTES_MAX
