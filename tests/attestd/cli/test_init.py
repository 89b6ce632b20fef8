"""`attestd init` makes a directory that serves, whole or not at all."""

import json
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from attestd.config import load_config
from attestd.issue.key_files import ALGORITHMS
from attestd.store import meta, signing_keys
from attestd.store.store import Store
from tests.attestd.cli.conftest import Run
from tests.postgres import Cluster, postgres_cluster

__all__ = ["postgres_cluster"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_fresh_directory_holds_and_is_closed_to_others(attestd: Run, served: Path) -> None:
    directory = served.parent
    assert sorted(path.name for path in directory.iterdir()) == [
        "attestd.db",
        "attestd.toml",
        "ek-roots",
        "keys",
    ]
    assert mode(directory / "keys") == 0o700
    assert {mode(path) for path in (directory / "keys").iterdir()} == {0o600}
    assert (mode(served), mode(directory / "attestd.db")) == (0o600, 0o600)
    assert list((directory / "ek-roots").iterdir()) == []
    checked = attestd("check", "--config", served)
    assert checked.exit_code == 0, checked.output


def test_the_configuration_says_what_was_asked_for(attestd: Run, tmp_path: Path) -> None:
    made = attestd("init", tmp_path / "a", "--trust-domain", "plant.example", "--listen", "127.0.0.1:9001")
    assert made.exit_code == 0, made.stderr
    config = load_config(tmp_path / "a" / "attestd.toml", {})
    assert (config.trust_domain, config.listen) == ("plant.example", "127.0.0.1:9001")
    assert config.external_url == "http://127.0.0.1:9001"
    assert config.database == f"sqlite:{tmp_path}/a/attestd.db"


def test_every_key_that_the_template_shows_is_one_that_is_known(served: Path, tmp_path: Path) -> None:
    shown = served.read_text(encoding="utf-8").replace("\n# ", "\n")
    body = shown.partition("trust_domain =")[2]
    path = tmp_path / "everything.toml"
    path.write_text(f"trust_domain ={body}", encoding="utf-8")
    shown_config, made = load_config(path, {}), load_config(served, {})
    assert shown_config.limits == made.limits
    assert shown_config.admission.pending_max == made.admission.pending_max


def test_one_key_for_each_use_signs_from_the_start(served: Path) -> None:
    store = Store.open(load_config(served, {}).database)
    keys = store.read(signing_keys.list_all)
    store.close()
    assert sorted(key.use for key in keys) == sorted(ALGORITHMS)
    assert {key.state for key in keys} == {"active"}
    assert {key.kid for key in keys} == {
        path.stem.partition("-")[2]
        for path in (served.parent / "keys").glob("*.pem")
        if not path.name.endswith(".crt.pem")
    }


def test_what_is_commented_out_is_the_default_or_can_be_used(served: Path) -> None:
    """Taking the comment marks away gives a configuration that is read, with nothing unknown in it."""
    plain = load_config(served, {})
    text = served.read_text(encoding="utf-8")
    (served.parent / "tls").mkdir()
    opened = served.with_name("opened.toml")
    opened.write_text(re.sub(r"^# (\w+ = |\[\[)", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
    config = load_config(opened, {})
    assert (config.limits, config.workers, config.admission) == (plain.limits, plain.workers, plain.admission)
    assert config.tls.mtls_listen == "127.0.0.1:8441"
    assert [one.issuer for one in config.subject_issuers] == ["https://login.example.org"]
    assert not config.subject_issuers[0].allow_private
    assert [(one.audience, one.client_id) for one in config.resources] == [("https://tools.example.org",) * 2]


def test_making_it_is_the_first_audit_record(served: Path) -> None:
    store = Store.open(load_config(served, {}).database)
    rows = store.read(lambda tx: tx.execute("SELECT record FROM audit_records").fetchall())
    agreed = store.read(meta.fingerprints)
    store.close()
    record = json.loads(rows[0]["record"])
    assert len(rows) == 1
    assert (record["event"], record["chain"], record["details"]["verb"]) == ("admin", "service", "init")
    assert agreed == {"keys": record["details"]["keys"]}


def test_a_directory_that_is_used_is_refused_and_left_as_it_was(attestd: Run, served: Path) -> None:
    before = {path: path.read_bytes() for path in served.parent.rglob("*") if path.is_file()}
    refused = attestd("init", served.parent, "--trust-domain", "other.example")
    assert refused.exit_code == 1
    assert "has an attestd.toml already" in refused.stderr
    assert {path: path.read_bytes() for path in served.parent.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("left", ["keys", "ek-roots", "attestd.db"])
def test_what_is_there_without_a_configuration_is_not_taken_over(
    attestd: Run, tmp_path: Path, left: str
) -> None:
    (tmp_path / "a" / left).mkdir(parents=True)
    refused = attestd("init", tmp_path / "a", "--trust-domain", "example.org")
    assert refused.exit_code == 1
    assert "is there already; move it away" in refused.stderr
    assert [path.name for path in (tmp_path / "a").iterdir()] == [left]


def test_an_empty_directory_is_used(attestd: Run, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert attestd("init", tmp_path / "a", "--trust-domain", "example.org").exit_code == 0


def test_st_8_a_link_in_the_place_of_the_configuration_is_not_followed(attestd: Run, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "attestd.toml").symlink_to(tmp_path / "target")
    assert attestd("init", tmp_path / "a", "--trust-domain", "example.org").exit_code == 1
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--trust-domain", "Example.org"), "a trust domain is"),
        (("--trust-domain", "example.org", "--listen", "8440"), "HOST:PORT"),
        (("--trust-domain", "example.org", "--listen", "0.0.0.0:8440"), "set [tls] certificate"),
        (("--trust-domain", "example.org", "--database", "mysql:x"), "sqlite:FILE"),
        (("--trust-domian", "example.org"), "--trust-domain"),
        ((), "--trust-domain"),
    ],
)
def test_a_wrong_option_makes_nothing(
    attestd: Run, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    refused = attestd("init", tmp_path / "a", *options)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_st_8_a_kill_at_any_time_leaves_a_whole_directory_or_none(attestd: Run, tmp_path: Path) -> None:
    code = "from attestd.cli.main import main; main()"
    outcomes = set()
    for step in range(8):
        directory = tmp_path / str(step)
        process = subprocess.Popen(
            [sys.executable, "-c", code, "init", directory, "--trust-domain", "example.org"],
            stdout=subprocess.DEVNULL,
        )
        try:
            process.wait(0.15 * step)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        whole = (directory / "attestd.toml").exists()
        outcomes.add(whole)
        if whole:
            assert attestd("check", "--config", directory / "attestd.toml").exit_code == 0
    assert False in outcomes


def test_it_serves_from_postgresql_too(attestd: Run, tmp_path: Path, postgres_cluster: Cluster) -> None:
    url = postgres_cluster.fresh()
    made = attestd("init", tmp_path / "a", "--trust-domain", "example.org", "--database", url)
    assert made.exit_code == 0, made.stderr
    assert not (tmp_path / "a" / "attestd.db").exists()
    assert attestd("check", "--config", tmp_path / "a" / "attestd.toml").exit_code == 0
    again = attestd("init", tmp_path / "b", "--trust-domain", "example.org", "--database", url)
    assert again.exit_code == 1
    assert "signing keys of another directory" in again.stderr
    assert not (tmp_path / "b").exists()
