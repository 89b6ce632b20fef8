"""A database that was named later begins with the keys that are there, and with no others."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from attestd.adoption import adopt_keys
from attestd.app import build_service
from attestd.config import Config, load_config
from attestd.issue.key_files import ALGORITHMS, create_key, read_key_files
from attestd.store import audit_show, meta, signing_keys
from attestd.store.audit_show import Wanted
from attestd.store.errors import NoTables
from attestd.store.store import Store
from tests.deployment import Refused, configure, run
from tests.postgres import Cluster, postgres_cluster
from tpm.errors import PolicyError

__all__ = ["postgres_cluster"]

NOW = 1_790_000_000_000
POLICY = Path(__file__).parents[2] / "policies" / "secure-boot-only.toml"


def made(directory: Path, database: str) -> Config:
    """A directory as `attestd init` makes it, pointed at another database afterwards."""
    run("init", str(directory), "--trust-domain", "example.org")
    configure(directory, {"database": f'"{database}"'})
    return load_config(directory / "attestd.toml", {})


@pytest.fixture
def config(tmp_path: Path, postgres_cluster: Cluster) -> Config:
    return made(tmp_path / "a", postgres_cluster.fresh())


@pytest.fixture
def store(config: Config) -> Iterator[Store]:
    opened = Store.open(config.database)
    opened.migrate()
    yield opened
    opened.close()


def kids(store: Store) -> set[str]:
    return {key.kid for key in store.read(signing_keys.list_all)}


def test_a_service_starts_on_an_empty_database_and_signs_with_the_keys_it_has(config: Config) -> None:
    service = build_service(config)
    assert service.ready(now=NOW) == {"store": True, "keys": True, "trust": True, "policies": True}
    assert {service.keyring.at(NOW).signer(use).use for use in ALGORITHMS} == set(ALGORITHMS)
    service.close()


def test_an_operator_may_come_before_the_service(config: Config) -> None:
    where = ("--config", str(config.path))
    assert run("policy", "apply", str(POLICY), *where).exit_code == 0
    assert "intact: 2 records" in run("audit", "verify", *where).stdout
    verbs = [record["details"]["verb"] for record in _admin(config)]
    assert verbs == ["keys adopt", "policy apply"]


def _admin(config: Config) -> list[dict[str, dict[str, str]]]:
    store = Store.open(config.database)
    found = store.read(lambda tx: list(audit_show.records(tx, Wanted(event="admin"))))
    store.close()
    return found


def test_check_says_that_it_is_empty_and_leaves_it_so(config: Config) -> None:
    told = run("check", "--config", str(config.path))
    assert "warning  database       is empty" in told.stdout
    assert "fault" not in told.stdout
    store = Store.open(config.database)
    with pytest.raises(NoTables):
        store.read(signing_keys.list_all)
    store.close()


def test_only_the_first_directory_gives_its_keys(config: Config, store: Store, tmp_path: Path) -> None:
    other = made(tmp_path / "b", config.database)
    assert adopt_keys(store, config, verb="keys adopt", by="test", now=NOW)
    first = kids(store)
    assert not adopt_keys(store, config, verb="keys adopt", by="test", now=NOW)
    assert not adopt_keys(store, other, verb="keys adopt", by="test", now=NOW)
    assert kids(store) == first == {key.kid for key in read_key_files(config.keys).keys}
    assert store.read(meta.fingerprints) == {"keys": read_key_files(config.keys).fingerprint()}


def test_a_directory_that_does_not_say_which_key_signs_gives_none(config: Config, store: Store) -> None:
    create_key(config.keys, use="jwt", alg="ES256", trust_domain="example.org", now=NOW)
    with pytest.raises(PolicyError, match="has 2 for jwt") as caught:
        adopt_keys(store, config, verb="keys adopt", by="test", now=NOW)
    assert caught.value.reason == "keys_ambiguous"
    assert kids(store) == set()
    assert store.read(meta.fingerprints) == {}


def test_keys_of_another_trust_domain_are_not_taken(config: Config, store: Store) -> None:
    foreign = replace(config, trust_domain="other.example")
    with pytest.raises(PolicyError):
        adopt_keys(store, foreign, verb="keys adopt", by="test", now=NOW)
    assert kids(store) == set()


def test_a_database_in_place_of_another_begins_a_new_life(config: Config, store: Store) -> None:
    before = store.read(meta.epoch)
    adopt_keys(store, config, verb="keys adopt", by="test", now=NOW)
    assert store.read(meta.epoch) > before


def test_sqlite_is_made_by_init_alone_and_not_by_a_wrong_path(tmp_path: Path) -> None:
    config = made(tmp_path / "a", "sqlite:wrong.db")
    with pytest.raises(Refused, match="there is no database"):
        run("serve", "--config", str(config.path))
    assert not (tmp_path / "a" / "wrong.db").exists()
