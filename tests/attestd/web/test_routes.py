"""Nothing can be reached that is not declared with its authentication, or from where it is not protected."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attestd.config import Config, load_config
from attestd.web.application import create_web
from attestd.web.exchange import source_of
from attestd.web.listeners import listeners_of
from attestd.web.routes import Verb
from tests.attestd.web.echo_service import VERBS, EchoBody, EchoService, echo
from tpm.errors import PolicyError


def config(folder: Path, text: str = "") -> Config:
    (folder / "attestd.toml").write_text(f'trust_domain = "example.org"\n{text}', encoding="utf-8")
    return load_config(folder / "attestd.toml", {})


def test_ad_7_every_path_declares_how_its_callers_are_authenticated(tmp_path: Path) -> None:
    web = create_web(EchoService(config(tmp_path)), VERBS)
    declared = {entry.path: entry.authentication for entry in web.table}
    assert {rule.rule for rule in web.url_map.iter_rules()} == declared.keys()
    assert all(declared.values())


@pytest.mark.parametrize("authentication", ["", "  "])
def test_ad_7_a_route_without_authentication_stops_the_start(tmp_path: Path, authentication: str) -> None:
    careless = Verb("/v1/new", EchoBody, echo, authentication, "New.")
    with pytest.raises(ValueError, match="authenticated"):
        create_web(EchoService(config(tmp_path)), (*VERBS, careless))


def test_ad_7_a_rule_beside_the_table_stops_the_start(tmp_path: Path) -> None:
    web = create_web(EchoService(config(tmp_path)), VERBS)
    web.check()
    web.add_url_rule("/backdoor", "backdoor", lambda: "")
    with pytest.raises(ValueError, match="/backdoor"):
        web.check()


def test_a_path_declared_twice_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        create_web(EchoService(config(tmp_path)), (*VERBS, replace(VERBS[0], summary="Again.")))


def test_ad_6_an_address_that_others_reach_needs_protection_however_the_configuration_was_made(
    tmp_path: Path,
) -> None:
    local = config(tmp_path)
    assert [listener.address for listener in listeners_of(local)] == ["127.0.0.1:8440"]
    with pytest.raises(PolicyError, match="behind_proxy"):
        listeners_of(replace(local, host="0.0.0.0"))
    behind = replace(local, host="192.0.2.1", tls=replace(local.tls, behind_proxy=True))
    assert listeners_of(behind)[0].context() is None


@pytest.mark.parametrize(
    ("peer", "forwarded", "behind_proxy", "source"),
    [
        ("192.0.2.1", None, False, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", False, "192.0.2.1"),
        ("127.0.0.1", "203.0.113.9", True, "203.0.113.9"),
        ("127.0.0.1", "198.51.100.1, 203.0.113.9", True, "203.0.113.9"),
        ("127.0.0.1", "198.51.100.1,2001:db8::1", True, "2001:db8::1"),
        ("127.0.0.1", None, True, "127.0.0.1"),
        ("127.0.0.1", "", True, "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9, evil", True, "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9:80", True, "127.0.0.1"),
        ("127.0.0.1", "a\r\nb", True, "127.0.0.1"),
    ],
)
def test_ds_6_a_source_is_named_by_our_own_proxy_alone(
    peer: str, forwarded: str | None, behind_proxy: bool, source: str
) -> None:
    environ: dict[str, Any] = {"REMOTE_ADDR": peer}
    if forwarded is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded
    assert source_of(environ, behind_proxy=behind_proxy) == source
