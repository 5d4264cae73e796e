"""What all servers must share, whatever way it is written."""

import pytest

from meshd.config.critical import critical_settings


def settings_of(
    *args: str, embedded_registry: bool = False, external_db: str | None = None
) -> dict[str, str]:
    found = critical_settings(args, embedded_registry=embedded_registry, external_db=external_db)
    return dict(found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("--cluster-cidr=10.1.0.0/16",), ("--cluster-cidr", "10.1.0.0/16")),
        (("--cluster-cidr=10.42.0.0/16",), ()),
        (("--flannel-backend=vxlan", "--cluster-domain=cluster.local"), ()),
        (("--disable-network-policy",), ("--disable-network-policy=true",)),
        (("--disable-network-policy=false",), ()),
        (("--flannel-ipv6-masq", "--disable=x"), ("--disable=x", "--flannel-ipv6-masq")),
        (("--disable=servicelb,traefik",), ("--disable=traefik", "--disable", "servicelb")),
        (
            ("--cluster-cidr=10.1.0.0/16,fd00:1::/48",),
            ("--cluster-cidr=10.1.0.0/16", "--cluster-cidr=fd00:1:0::/48"),
        ),
        (("--node-label=a=b", "--tls-san=x", "--kubelet-arg=max-pods=50"), ()),
        (("--disable=traefik",), ()),
    ],
)  # fmt: skip
def test_spelling_and_order_do_not_count(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert settings_of(*one) == settings_of(*other)


@pytest.mark.parametrize(
    "arg",
    [
        "--cluster-cidr=10.44.0.0/16",
        "--service-cidr=10.45.0.0/16",
        "--cluster-dns=10.43.0.11",
        "--cluster-domain=lab.local",
        "--disable-cloud-controller",
        "--disable-helm-controller",
        "--disable-network-policy",
        "--disable=servicelb",
        "--secrets-encryption",
        "--secrets-encryption-provider=secretbox",
        "--embedded-registry",
        "--flannel-backend=none",
        "--flannel-ipv6-masq",
        "--flannel-external-ip",
        "--egress-selector-mode=pod",
        "--supervisor-metrics",
    ],
)
def test_each_critical_setting_counts(arg: str) -> None:
    assert settings_of(arg) != settings_of()


def test_keys_of_the_file_count_like_arguments() -> None:
    assert settings_of(embedded_registry=True) == settings_of("--embedded-registry")


def test_an_external_database_is_compared_without_its_password_being_there() -> None:
    one, other = (settings_of(external_db=f"mysql://root:{word}@db") for word in ("abc", "abd"))
    assert one != other != settings_of()
    assert "abc" not in one["datastore-endpoint"]


def test_what_k3s_will_refuse_is_passed_on_as_it_is() -> None:
    assert settings_of("--cluster-cidr=nonsense")["cluster-cidr"] == "nonsense"
