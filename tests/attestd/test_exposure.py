"""What weakens a service is named, and software TPMs are not trusted where others can connect."""

from dataclasses import replace
from pathlib import Path

import pytest

from attestd.config import Config, load_config
from attestd.exposure import emulators_of, refuse_exposed_emulators, unsafe_modes
from tpm.errors import PolicyError
from tpm.swtpm_ca import make_test_ca
from tpm.verify.certificate import Certificate
from tpm.verify.certificate_reader import as_certificate

SOFTWARE = as_certificate(make_test_ca().root)
MAKER = as_certificate(make_test_ca("Infineon OPTIGA(TM) RSA Root CA").root)


@pytest.fixture
def loopback(tmp_path: Path) -> Config:
    path = tmp_path / "attestd.toml"
    path.write_text('trust_domain = "example.org"\n[admission]\ntofu = true\n')
    return load_config(path, {})


@pytest.fixture
def exposed(loopback: Config) -> Config:
    return replace(loopback, host="192.0.2.7")


def test_ad_6_software_tpms_are_refused_where_others_can_connect(loopback: Config, exposed: Config) -> None:
    refuse_exposed_emulators(loopback, [MAKER, SOFTWARE])
    refuse_exposed_emulators(exposed, [MAKER])
    with pytest.raises(PolicyError, match="ek-roots remove") as caught:
        refuse_exposed_emulators(exposed, [MAKER, SOFTWARE])
    assert caught.value.reason == "emulator_exposed"


@pytest.mark.parametrize(
    ("roots", "modes"),
    [((MAKER,), ("tofu",)), ((MAKER, SOFTWARE), ("tofu", "emulated_tpms")), ((), ("tofu",))],
)
def test_ad_6_every_mode_in_use_is_named(
    loopback: Config, roots: tuple[Certificate, ...], modes: tuple[str, ...]
) -> None:
    assert unsafe_modes(loopback, roots) == modes


def test_only_what_calls_itself_a_software_tpm_counts_as_one() -> None:
    assert emulators_of([MAKER, SOFTWARE]) == (SOFTWARE,)
