"""Does an operator rotate keys by the rules, with a record of each step?"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from attestd.cli.main import main
from attestd.config import load_config
from attestd.issue.audit_keys import audit_verifier
from attestd.issue.key_files import ALGORITHMS, read_key_files
from attestd.issue.keys import KeyRing
from attestd.store import meta, signing_keys
from attestd.store.audit_verify import verify
from attestd.store.store import Store

LATER = 10**13
"""A moment in the year 2286, for what has not ended yet."""


@dataclass
class Installation:
    """A directory made by `attestd init`, its store, and what its service would sign with."""

    directory: Path
    store: Store

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["keys", *words, "--config", str(self.directory / "attestd.toml")])

    def listed(self) -> list[dict[str, Any]]:
        result = self.run("list", "--json")
        assert result.exit_code == 0
        return [json.loads(line) for line in result.stdout.splitlines()]

    def of_use(self, use: str) -> dict[str, str]:
        """The state of each key, by kid, the oldest first."""
        return {key["kid"]: key["state"] for key in self.listed() if key["use"] == use}

    def add(self, use: str = "jwt", *more: str) -> str:
        before = self.of_use(use)
        assert self.run("add", "--use", use, *more).exit_code == 0
        (kid,) = self.of_use(use).keys() - before.keys()
        return kid

    def set(self, kid: str, column: str, value: int | str) -> None:
        """What time alone would bring about."""
        self.store.write(
            lambda tx: tx.execute(f"UPDATE signing_keys SET {column} = ? WHERE kid = ?", (value, kid))
        )

    def ring(self) -> KeyRing:
        keys = self.directory / "keys"
        return KeyRing(
            keys, trust_domain="example.org", read_states=lambda: self.store.read(signing_keys.list_all)
        )

    def records(self, verb: str) -> list[dict[str, Any]]:
        rows = self.store.read(
            lambda tx: tx.execute(
                "SELECT record FROM audit_records WHERE event = 'admin' ORDER BY sequence"
            ).fetchall()
        )
        records = [json.loads(row["record"]) for row in rows]
        return [record for record in records if record["details"]["verb"] == verb]


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installation]:
    directory = tmp_path / "attestd"
    assert CliRunner().invoke(main, ["init", str(directory), "--trust-domain", "example.org"]).exit_code == 0
    store = Store.open(load_config(directory / "attestd.toml", {}).database)
    yield Installation(directory, store)
    store.close()


def test_after_init_one_key_of_each_use_signs(installed: Installation) -> None:
    assert [(key["use"], key["state"]) for key in installed.listed()] == [
        (use, "active") for use in ALGORITHMS
    ]
    assert installed.ring().at(0).missing == ()


def test_people_read_the_same_list(installed: Installation) -> None:
    kid = installed.add()
    lines = installed.run("list").stdout.splitlines()
    assert len(lines) == len(ALGORITHMS) + 1
    assert [line for line in lines if kid in line and "published" in line and "never active" in line]


@pytest.mark.parametrize(("use", "alg"), [(use, alg) for use, algs in ALGORITHMS.items() for alg in algs])
def test_a_key_is_added_published_and_recorded(installed: Installation, use: str, alg: str) -> None:
    kid = installed.add(use, "--alg", alg)
    ring = installed.ring().at(0)
    assert [signer.kid for signer in ring.published(use)][-1] == kid
    assert ring.signer(use).kid != kid
    assert ring.signers[kid].alg == alg
    (record,) = installed.records("keys add")
    assert (record["details"]["kid"], record["details"]["use"], record["details"]["alg"]) == (kid, use, alg)
    files = read_key_files(installed.directory / "keys")
    assert installed.store.read(meta.fingerprints)["keys"] == files.fingerprint()


@pytest.mark.parametrize(
    "options", [["--use", "tls"], ["--use", "wit", "--alg", "RS256"], ["--use", "jwt", "--alg", "none"], []]
)
def test_a_key_that_nothing_here_signs_with_is_refused(installed: Installation, options: list[str]) -> None:
    before = sorted((installed.directory / "keys").iterdir())
    assert installed.run("add", *options).exit_code == 2
    assert sorted((installed.directory / "keys").iterdir()) == before
    assert installed.records("keys add") == []


def test_an_addition_that_the_store_does_not_keep_leaves_no_file(installed: Installation) -> None:
    before = sorted((installed.directory / "keys").iterdir())
    installed.store.write(lambda tx: tx.execute("DROP TABLE audit_records"))
    assert installed.run("add", "--use", "x509").exit_code != 0
    assert sorted((installed.directory / "keys").iterdir()) == before
    assert len(installed.listed()) == len(ALGORITHMS)


def test_mt_9_a_new_key_is_not_activated_before_others_can_know_it(installed: Installation) -> None:
    old, new = next(iter(installed.of_use("jwt"))), installed.add()
    refused = installed.run("activate", new)
    assert refused.exit_code == 1
    assert "try again in" in refused.stderr
    assert installed.of_use("jwt") == {old: "active", new: "published"}
    assert installed.records("keys activate") == []
    installed.set(new, "published_at", 1000)
    assert installed.run("activate", new).exit_code == 0
    assert installed.of_use("jwt") == {new: "active", old: "published"}
    (record,) = installed.records("keys activate")
    assert record["details"]["kid"] == new


def test_who_is_in_a_hurry_says_so(installed: Installation) -> None:
    new = installed.add()
    assert installed.run("activate", new, "--now").exit_code == 0
    assert installed.of_use("jwt")[new] == "active"
    (record,) = installed.records("keys activate")
    assert record["details"]["at_once"] is True


def test_a_key_whose_file_is_elsewhere_is_not_activated(installed: Installation) -> None:
    new = installed.add()
    path = installed.directory / "keys" / f"jwt-{new}.pem"
    path.rename(installed.directory / "away.pem")
    refused = installed.run("activate", new, "--now")
    assert (refused.exit_code, installed.of_use("jwt")[new]) == (1, "published")
    (installed.directory / "away.pem").rename(path)
    assert installed.run("activate", new, "--now").exit_code == 0


def test_mt_9_an_old_key_is_retired_when_its_last_credential_has_ended(installed: Installation) -> None:
    old, new = next(iter(installed.of_use("jwt"))), installed.add()
    assert installed.run("retire", old).exit_code == 1
    assert installed.run("activate", new, "--now").exit_code == 0
    installed.set(old, "last_expiry", LATER)
    refused = installed.run("retire", old)
    assert refused.exit_code == 1
    assert "lives for" in refused.stderr
    assert [signer.kid for signer in installed.ring().at(0).published("jwt")] == [old, new]
    installed.set(old, "last_expiry", 1000)
    assert installed.run("retire", old).exit_code == 0
    assert installed.of_use("jwt") == {old: "retired", new: "active"}
    assert [signer.kid for signer in installed.ring().at(0).published("jwt")] == [new]
    (record,) = installed.records("keys retire")
    assert record["details"] | {"kid": old, "use": "jwt"} == record["details"]
    for verb in ("retire", "activate"):
        assert installed.run(verb, old).exit_code == 1


def test_rotating_the_audits_key_keeps_every_record_verifiable(installed: Installation) -> None:
    old, new = next(iter(installed.of_use("audit"))), installed.add("audit")
    for words in (("activate", new, "--now"), ("retire", old)):
        assert installed.run(*words).exit_code == 0
    kids = installed.store.read(lambda tx: tx.execute("SELECT kid FROM audit_heads").fetchall())
    assert [row["kid"] for row in kids] == [new]
    verifier = audit_verifier(installed.ring().at(0))
    assert installed.store.read(lambda tx: verify(tx, verifier)).faults == ()


@pytest.mark.parametrize("named", ["", "f", "ffffffffffffffffffffffffffffffff", "../x", "%", "' OR 1=1 --"])
@pytest.mark.parametrize("verb", ["activate", "retire"])
def test_a_name_of_no_key_is_refused(installed: Installation, verb: str, named: str) -> None:
    # What the first key of all would allow.
    first = installed.store.read(signing_keys.list_all)[0].kid
    installed.set(first, "state", "published")
    installed.set(first, "published_at", 1000)
    before = installed.listed()
    assert installed.run(verb, named).exit_code == 1
    assert installed.listed() == before


def test_the_beginning_of_a_name_is_enough(installed: Installation) -> None:
    new = installed.add()
    assert installed.run("activate", new[:12], "--now").exit_code == 0
    assert installed.of_use("jwt")[new] == "active"


def test_ad_3_keys_that_are_open_to_others_are_not_administered(installed: Installation) -> None:
    keys = installed.directory / "keys"
    keys.chmod(0o755)
    refused = installed.run("add", "--use", "jwt")
    assert refused.exit_code == 1
    assert "chmod 700" in refused.stderr
    keys.chmod(0o700)
    assert installed.run("add", "--use", "jwt").exit_code == 0
