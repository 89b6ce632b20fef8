"""A policy that loads means what its author wrote; all else is refused at its key, with the next step."""

import hashlib
from pathlib import Path

import pytest

from attestd.policy.document import MAX_SOURCE, load_policy
from tests.attestd.policy.documents import GOOD_0, GOOD_7, HEALTHY, OTHER_7, SMALL, changed, load, refused
from tpm.errors import PolicyError

ZERO = "sha256:" + "00" * 32
ONES = "sha256:" + "ff" * 32


def test_a_healthy_policy_says_what_its_author_wrote() -> None:
    policy = load(HEALTHY)
    assert (policy.name, policy.description, policy.bank) == ("edge-gateway", "Gateways", "sha256")
    assert (policy.disclose, policy.on_reset) == ("findings", "reject")
    assert policy.match.labels == {"site": ("plant-1", "plant-2")}
    assert policy.match.manufacturers == ("IFX", "id:00001014")
    assert policy.pcrs == {
        0: (bytes.fromhex(GOOD_0),),
        7: (bytes.fromhex(GOOD_7), bytes.fromhex(OTHER_7)),
    }
    first, second = policy.grants
    assert (first.agent, first.formats, first.ttl, first.key) == (
        "telemetry",
        ("x509-svid", "wit-svid"),
        600,
        "tpm",
    )
    assert (second.formats, second.ttl, second.key) == (("jwt-svid",), 300, "any")
    assert second.audiences == ("https://ingest.example.org",)
    assert [(seal.name, seal.kind, seal.pcrs) for seal in policy.seals] == [("disk", "secret-32", (0, 9))]


def test_a_policy_needs_the_registers_it_judges_and_those_it_seals_to() -> None:
    assert load(HEALTHY).needed() == (0, 7, 9)


def test_what_is_left_out_has_a_safe_default() -> None:
    policy = load(SMALL + '[[grant]]\nagent = "a"\nformats = ["x509-svid"]\n')
    assert (policy.bank, policy.disclose, policy.on_reset) == ("sha256", "codes", "accept")
    assert policy.match.specificity == 0
    grant = policy.grants[0]
    assert (grant.key, grant.ttl) == ("tpm", 600)
    assert grant.spiffe_id.text == "spiffe://{trust_domain}/agent/{agent}/{device_id}"


def test_the_identity_is_the_sha_256_of_the_bytes() -> None:
    spaced = HEALTHY + "\n"
    assert load(HEALTHY).digest == hashlib.sha256(HEALTHY.encode()).hexdigest()
    assert load(spaced).digest != load(HEALTHY).digest
    assert load(HEALTHY).source == HEALTHY.encode()


TYPOS = [
    ("[pcrs]", "[pcr]", "pcr", "pcrs"),
    ("bank =", "banks =", "banks", "bank"),
    ("labels =", "label =", "match.label", "labels"),
    ("on_reset =", "on_rest =", "clock.on_rest", "on_reset"),
    ("formats =", "format =", "grant[0].format", "formats"),
    ("kind =", "kinds =", "seal[0].kinds", "kind"),
]


@pytest.mark.parametrize(("old", "new", "path", "meant"), TYPOS)
def test_pd_2_an_unknown_key_is_refused_with_the_nearest_known_one(
    old: str, new: str, path: str, meant: str
) -> None:
    error = refused(changed(old, new))
    assert error.reason == "key_unknown"
    assert error.detail.startswith(f"{path}:")
    assert f"did you mean {meant}?" in error.detail


def test_pd_2_an_unknown_key_that_resembles_nothing_lists_the_known_ones() -> None:
    error = refused(changed("on_reset", "zzz"))
    assert error.reason == "key_unknown"
    assert "on_reset" in error.detail


@pytest.mark.parametrize(
    "text",
    [
        HEALTHY + 'bank = "sha256"\n[clock]\n',
        changed('bank = "sha256"', 'bank = "sha256"\nbank = "sha256"'),
        changed("[clock]", "[pcrs]"),
        changed("0 = [", "7 = ["),
        'name = "x',
        "name = 1 2",
        "a = " + "[" * 20_000,
        "a = " + "{a=" * 5_000,
        "a = " + "1" * 5_000,
        "﻿" + HEALTHY,
    ],
)
def test_pd_2_what_is_not_one_toml_document_is_refused(text: str) -> None:
    assert refused(text).reason in {"toml_invalid", "key_unknown"}


def test_pd_2_a_duplicate_key_is_refused() -> None:
    assert refused(changed("[clock]", "[pcrs]")).reason == "toml_invalid"


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    with pytest.raises(PolicyError, match="not UTF-8 at byte 0"):
        load_policy(b"\xff" + HEALTHY.encode(), {})


def test_a_document_has_a_bounded_size() -> None:
    assert load(HEALTHY + "#" * (MAX_SOURCE - len(HEALTHY))).name == "edge-gateway"
    assert refused(HEALTHY + "#" * (MAX_SOURCE + 1 - len(HEALTHY))).reason == "too_large"


def test_a_file_that_no_key_names_is_refused() -> None:
    with pytest.raises(PolicyError, match="debian"):
        load_policy(HEALTHY.encode(), {"debian.digests": b""})


WRONG_TYPES = [
    ('name = "edge-gateway"', "name = 5", "name"),
    ('description = "Gateways"', "description = true", "description"),
    ('bank = "sha256"', "bank = 256", "bank"),
    ('disclose = "findings"', "disclose = []", "disclose"),
    ("[match]", "[[match]]", "match"),
    ('labels = { site = ["plant-1", "plant-2"] }', "labels = []", "match.labels"),
    ('["plant-1", "plant-2"]', '"plant-1"', "match.labels.site"),
    ('"plant-1", ', "1, ", "match.labels.site[0]"),
    ('["IFX", "id:00001014"]', '"IFX"', "match.manufacturers"),
    (f'0 = ["sha256:{GOOD_0}"]', f'0 = "sha256:{GOOD_0}"', "pcrs.0"),
    (f'"sha256:{GOOD_0}"', "17", "pcrs.0[0]"),
    ('on_reset = "reject"', "on_reset = false", "clock.on_reset"),
    ("[clock]\non_reset", "[[clock]]\non_reset", "clock"),
    ('agent = "telemetry"', "agent = nan", "grant[0].agent"),
    ('["x509-svid", "wit-svid"]', '"x509-svid"', "grant[0].formats"),
    ('ttl = "10m"', "ttl = 600", "grant[0].ttl"),
    ('ttl = "10m"', "ttl = nan", "grant[0].ttl"),
    ('ttl = "10m"', "ttl = 1979-05-27", "grant[0].ttl"),
    ("pcrs = [9, 0]", "pcrs = 9", "seal[0].pcrs"),
    ("pcrs = [9, 0]", 'pcrs = ["9"]', "seal[0].pcrs[0]"),
    ("pcrs = [9, 0]", "pcrs = [true]", "seal[0].pcrs[0]"),
    ("pcrs = [9, 0]", "pcrs = [9.0]", "seal[0].pcrs[0]"),
]


@pytest.mark.parametrize(("old", "new", "path"), WRONG_TYPES)
def test_pd_2_a_wrong_type_is_refused_at_its_key(old: str, new: str, path: str) -> None:
    error = refused(changed(old, new))
    assert error.reason == "type_wrong"
    assert error.detail.startswith(f"{path}: expected ")


EMPTY = [
    ('["plant-1", "plant-2"]', "[]", "match.labels.site"),
    ('{ site = ["plant-1", "plant-2"] }', "{}", "match.labels"),
    ('["IFX", "id:00001014"]', "[]", "match.manufacturers"),
    (f'["sha256:{GOOD_0}"]', "[]", "pcrs.0"),
    ('["x509-svid", "wit-svid"]', "[]", "grant[0].formats"),
    ('["https://ingest.example.org"]', "[]", "grant[1].audiences"),
    ("pcrs = [9, 0]", "pcrs = []", "seal[0].pcrs"),
    ('bank = "sha256"', "allow_unmeasured = []", "allow_unmeasured"),
]


@pytest.mark.parametrize(("old", "new", "path"), EMPTY)
def test_an_empty_list_is_an_error(old: str, new: str, path: str) -> None:
    error = refused(changed(old, new))
    assert error.reason == "list_empty"
    assert error.detail.startswith(f"{path}:")


@pytest.mark.parametrize("table", ["[match]\n", "grant = []\n", "seal = []\n", "pcrs = {}\n"])
def test_an_empty_table_is_an_error(table: str) -> None:
    assert refused(table + SMALL if "=" in table else SMALL + table).reason in {"list_empty", "toml_invalid"}
    assert load(SMALL).name == "small"


@pytest.mark.parametrize(
    "text",
    [
        'name = "x"\n',
        'name = "x"\n[clock]\non_reset = "reject"\n',
        'name = "x"\n[[seal]]\nname = "d"\nkind = "secret-32"\npcrs = [7]\n',
    ],
)
def test_a_policy_that_demands_nothing_is_refused(text: str) -> None:
    assert refused(text).reason == "demands_nothing"
    assert load(text.replace('name = "x"\n', f'name = "x"\npcrs.7 = ["sha256:{GOOD_7}"]\n', 1)).name == "x"


BAD_DIGESTS = [
    "sha256:" + "ab" * 31,
    "sha256:" + "ab" * 33,
    "sha256:" + "AB" * 32,
    "sha256:" + "aB" * 32,
    "sha256:" + "ag" * 32,
    "sha256:" + "ab" * 31 + "a\\n",
    "sha256: " + "ab" * 32,
    "SHA256:" + "ab" * 32,
    "sha384:" + "ab" * 48,
    "sha1:" + "ab" * 20,
    "sha256:" + "١" * 64,
    "ab" * 32,
    "",
    "*",
]


@pytest.mark.parametrize("digest", BAD_DIGESTS)
def test_pd_2_a_digest_of_another_form_than_the_banks_is_refused(digest: str) -> None:
    error = refused(changed(f"sha256:{GOOD_0}", digest))
    assert error.reason in {"digest_wrong", "value_wrong"}
    assert error.detail.startswith("pcrs.0[0]: expected ")


def test_one_reference_value_listed_twice_is_refused() -> None:
    error = refused(changed(OTHER_7, GOOD_7))
    assert (error.reason, error.detail.partition(":")[0]) == ("value_twice", "pcrs.7")


@pytest.mark.parametrize(("bank", "size"), [("sha256", 32), ("sha384", 48), ("sha512", 64)])
def test_each_bank_takes_digests_of_its_own_length(bank: str, size: int) -> None:
    text = f'name = "x"\nbank = "{bank}"\n[pcrs]\n7 = ["{bank}:{"ab" * size}"]\n'
    assert load(text).pcrs == {7: (b"\xab" * size,)}


@pytest.mark.parametrize("bank", ["sha1", "SHA256", "sha-256", "sha3-256", "sm3"])
def test_pd_2_a_bank_that_may_not_be_judged_is_refused_by_name(bank: str) -> None:
    error = refused(changed('bank = "sha256"', f'bank = "{bank}"'))
    assert error.reason == "bank_wrong"
    assert f'"{bank}"' in error.detail


@pytest.mark.parametrize(
    "register", ["00", '" 0"', '"+0"', '"0 "', '"٠"', "24", "007", "-1", '"7\\n"', '""', "pcr7"]
)
def test_pc_9_a_register_is_written_in_one_way(register: str) -> None:
    error = refused(changed("0 = [", f"{register} = ["))
    assert error.reason == "register_wrong"
    assert error.detail.startswith("pcrs:")


@pytest.mark.parametrize("register", [0, 8, 23])
def test_pc_9_each_register_of_a_tpm_can_be_named(register: int) -> None:
    assert register in load(changed("0 = [", f"{register} = [")).pcrs


@pytest.mark.parametrize("pcrs", ["[24]", "[-1]", "[9, 9]", "[9999999999999999999999]"])
def test_registers_of_a_seal_exist_and_are_named_once(pcrs: str) -> None:
    error = refused(changed("pcrs = [9, 0]", f"pcrs = {pcrs}"))
    assert error.reason in {"register_wrong", "value_twice"}
    assert error.detail.startswith("seal[0].pcrs")


@pytest.mark.parametrize("value", [ZERO, ONES])
def test_pc_7_an_unmeasured_reference_value_is_refused_unless_the_author_says_so(value: str) -> None:
    text = changed(f"sha256:{GOOD_0}", value)
    error = refused(text)
    assert error.reason == "unmeasured_reference"
    assert "allow_unmeasured = [0]" in error.detail
    assert refused("allow_unmeasured = [7]\n" + text).reason == "unmeasured_reference"
    assert load("allow_unmeasured = [0]\n" + text).allow_unmeasured == {0}


def test_pc_7_an_unmeasured_value_beside_a_good_one_is_refused_too() -> None:
    assert refused(changed(f'"sha256:{OTHER_7}"', f'"{ZERO}"')).reason == "unmeasured_reference"


BAD_VALUES = [
    ('name = "edge-gateway"', 'name = "Edge Gateway"', "name"),
    ('name = "edge-gateway"', 'name = "edge@2"', "name"),
    ('name = "edge-gateway"', 'name = "edge\\n"', "name"),
    ('name = "edge-gateway"', f'name = "{"a" * 64}"', "name"),
    ('description = "Gateways"', 'description = "a\\u0000b"', "description"),
    ('disclose = "findings"', 'disclose = "all"', "disclose"),
    ('"reject"', '"ignore"', "clock.on_reset"),
    ('"telemetry"', '"Telemetry"', "grant[0].agent"),
    ('"telemetry"', '"tele/metry"', "grant[0].agent"),
    ('"telemetry"', '"telemetry\\n"', "grant[0].agent"),
    ('"telemetry"', f'"{"a" * 64}"', "grant[0].agent"),
    ('"x509-svid"', '"x509"', "grant[0].formats[0]"),
    ('key = "tpm"', 'key = "none"', "grant[0].key"),
    ('key = "any"', 'key = "tpm"', "grant[1].key"),
    ('name = "disk"', 'name = "Disk"', "seal[0].name"),
    ('"IFX"', '"Infineon"', "match.manufacturers[0]"),
    ('"id:00001014"', '"id:1014"', "match.manufacturers[1]"),
]


@pytest.mark.parametrize(("old", "new", "path"), BAD_VALUES)
def test_a_value_outside_its_set_is_refused_at_its_key(old: str, new: str, path: str) -> None:
    error = refused(changed(old, new))
    assert error.reason == "value_wrong"
    assert error.detail.startswith(f"{path}: expected ")


WILDCARDS = [
    ('"plant-1"', '"plant-*"', "match.labels.site[0]"),
    ('"plant-1"', '"plant-?"', "match.labels.site[0]"),
    ('"https://ingest.example.org"', '"https://*.example.org"', "grant[1].audiences[0]"),
    ('"https://ingest.example.org"', '"*"', "grant[1].audiences[0]"),
    ('"telemetry"', '"*"', "grant[0].agent"),
]


@pytest.mark.parametrize(("old", "new", "path"), WILDCARDS)
def test_pd_7_a_wildcard_is_refused_rather_than_taken_literally(old: str, new: str, path: str) -> None:
    error = refused(changed(old, new))
    assert error.reason == "value_wrong"
    assert error.detail.startswith(f"{path}:")


STARTERS = sorted(Path("policies").glob("*.toml"))


def test_there_are_starters() -> None:
    assert {path.stem for path in STARTERS} >= {"edge-gateway", "secure-boot-only", "software-tpm-ci"}


@pytest.mark.parametrize("path", STARTERS, ids=lambda path: path.stem)
def test_each_starter_loads_and_is_named_like_its_file(path: Path) -> None:
    policy = load_policy(path.read_bytes(), {})
    assert policy.name == path.stem
    assert policy.grants
