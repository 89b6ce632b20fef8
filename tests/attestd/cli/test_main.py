"""The command line answers at once, in one line where it refuses, and with the exit status promised."""

import http.client
import ssl
import subprocess
import sys
from pathlib import Path

import click
import pytest

from attestd.cli.failures import failure_of
from attestd.cli.main import NOUNS, main
from attestd.store.errors import NewerDatabase, StoreUnavailable
from attestd.wire import Problem
from tests.attestd.cli.conftest import Run
from tpm.errors import DeviceError, EvidenceError, PolicyError

HEAVY = {"flask", "pydantic", "cryptography", "sqlite_utils", "sqlite3", "psycopg", "gunicorn", "jwt"}


@pytest.mark.parametrize("words", [("--version",), ("--help",)])
def test_an_answer_that_needs_nothing_loads_nothing(words: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom attestd.cli.main import main\n"
        "main(sys.argv[1:], standalone_mode=False)\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "click" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_every_noun_loads_and_has_help_and_version(attestd: Run, noun: str) -> None:
    helped = attestd(noun, "--help")
    assert helped.exit_code == 0, helped.output
    assert "Usage: " in helped.stdout
    assert attestd(noun, "--version").stdout.startswith("attestd 0.")


def test_every_verb_has_a_version(attestd: Run) -> None:
    for noun in NOUNS:
        command = main.get_command(click.Context(main), noun)
        for verb in getattr(command, "commands", {}):
            told = attestd(noun, verb, "--version")
            assert told.stdout.startswith("attestd 0."), (noun, verb, told.output)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("devise",), "did you mean device?"),
        (("ekroots",), "did you mean ek-roots?"),
        (("zzzzz",), "known are init, serve"),
        (("device", "lst"), "lst"),
        (("device", "list", "--jso"), "--jso"),
        (("--bogus",), "--bogus"),
        (("init",), "DIR"),
    ],
)
def test_wrong_usage_is_told_in_one_line_with_status_2(
    attestd: Run, words: tuple[str, ...], said: str
) -> None:
    refused = attestd(*words)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert refused.stderr.startswith("attestd: ")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Problem("conflict", "It is so already."), 1, "refused (conflict): It is so already."),
        (PolicyError("config_value", "x.toml: listen is wrong"), 1, "x.toml: listen is wrong"),
        (PolicyError("file_unreadable", "x.toml: gone"), 2, "x.toml: gone"),
        (DeviceError("tpm_gone", "no TPM"), 1, "the TPM refused (tpm_gone): no TPM"),
        (EvidenceError("bad_signature", "no"), 1, "bad_signature: no"),
        (FileNotFoundError(2, "No such file", "a.pem"), 2, "a.pem: No such file"),
        (PermissionError(13, "Permission denied", "a.pem"), 2, "a.pem: Permission denied"),
        (ConnectionRefusedError(111, "Connection refused"), 3, "unreachable"),
        (TimeoutError("timed out"), 3, "unreachable"),
        (http.client.BadStatusLine("x"), 3, "unreachable"),
        (ssl.SSLCertVerificationError(1, "unknown CA"), 1, "not trusted"),
        (StoreUnavailable("no connection"), 3, "the database does not answer: no connection"),
        (NewerDatabase("version 9 wrote this"), 1, "version 9 wrote this"),
        (KeyError("x"), 1, "internal error: KeyError"),
        (click.UsageError("no such thing."), 2, "no such thing; see `attestd --help`"),
        (click.FileError("a.txt", "gone"), 2, "a.txt"),
    ],
)
def test_an_error_is_one_line_and_one_status(error: Exception, status: int, said: str) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.exit_code == status
    assert said in failure.message
    assert "\n" not in failure.message


def test_a_traceback_is_shown_to_who_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTESTD_DEBUG", "1")
    assert failure_of(KeyError("x")) is None


@pytest.mark.parametrize("noun", ["serve", "check", "doctor"])
def test_a_missing_configuration_is_status_2_and_a_wrong_one_status_1(
    attestd: Run, tmp_path: Path, noun: str
) -> None:
    absent = attestd(noun, "--config", tmp_path / "absent.toml")
    assert (absent.exit_code, absent.stderr.count("\n")) == (2, 1)
    wrong = tmp_path / "attestd.toml"
    wrong.write_text('trust_domian = "example.org"')
    refused = attestd(noun, "--config", wrong)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "did you mean trust_domain?" in refused.stderr


def test_a_missing_database_is_told_and_not_made(attestd: Run, served: Path) -> None:
    (served.parent / "attestd.db").unlink()
    refused = attestd("device", "list", "--config", served)
    assert refused.exit_code == 2
    assert "there is no database" in refused.stderr
    assert not (served.parent / "attestd.db").exists()


def test_a_database_that_does_not_answer_is_one_line_and_status_3(tmp_path: Path) -> None:
    path = tmp_path / "attestd.toml"
    path.write_text('trust_domain = "example.org"\ndatabase = "postgresql://a@127.0.0.1:1/x"\n')
    code = "from attestd.cli.main import main; main()"
    command = [sys.executable, "-c", code, "device", "list", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3
    assert "the database does not answer" in done.stderr
    assert done.stderr.count("\n") == 1
