"""A policy comes into force by `attestd policy apply` alone, whole, kept for ever, and on the record."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.attestd.cli.operator import DEVICE, OTHER, Operator
from tests.attestd.policy.documents import GOOD_7, HEALTHY, SMALL
from tests.recorded import components

V1 = SMALL
V2 = SMALL + "# changed\n"
EVERYONE_TOO = SMALL.replace("small", "other")


def test_check_says_what_a_policy_demands_and_gives(operator: Operator) -> None:
    text = operator.done("policy", "check", operator.write("a.toml", HEALTHY))
    for said in (
        "edge-gateway sha256:",
        "site = plant-1 or plant-2 and a TPM of IFX",
        "register 7 (the Secure Boot",
    ):
        assert said in text
    for said in ("grants    telemetry: x509-svid, wit-svid for 600 s", "seals     disk: secret-32"):
        assert said in text


def test_check_takes_a_configuration_and_does_not_read_it(operator: Operator) -> None:
    operator.done("policy", "check", operator.write("a.toml", HEALTHY), "--config", "absent.toml")


def test_check_as_json_gives_the_whole_policy(operator: Operator) -> None:
    (told,) = operator.objects("policy", "check", operator.write("a.toml", HEALTHY))
    assert told["valid"] is True
    assert told["pcrs"]["7"][0] == f"sha256:{GOOD_7}"
    assert told["needs"] == [0, 7, 9]
    assert told["grants"][1]["audiences"] == ["https://ingest.example.org"]
    assert told["match"]["labels"] == {"site": ["plant-1", "plant-2"]}


def test_what_an_agent_may_ask_for_as_a_client_is_said_in_words_and_as_json(operator: Operator) -> None:
    rights = """key = "any"
scopes = ["telemetry.write", "telemetry.read"]
authorization_details = ["transfer"]
bearer = true
max_posture_age = "1h"
delegation = { issuers = ["https://login.example.org"], depth = 2 }
"""
    path = operator.write("a.toml", HEALTHY.replace('key = "tpm"\n', rights, 1))
    text = operator.done("policy", "check", path)
    for said in (
        "tokens with telemetry.write, telemetry.read",
        "tokens with details of type transfer",
        "bound to no key: whoever sees one can use it",
        "attested within 3600 s",
        "users of https://login.example.org, through at most 2 agents",
        "for https://ingest.example.org",
    ):
        assert said in text
    (told,) = operator.objects("policy", "check", path)
    assert told["grants"][0] == told["grants"][0] | {
        "scopes": ["telemetry.write", "telemetry.read"],
        "authorization_details": ["transfer"],
        "bearer": True,
        "max_posture_age": 3600,
        "delegation": {"issuers": ["https://login.example.org"], "depth": 2},
    }
    assert told["grants"][1] == told["grants"][1] | {
        "scopes": [],
        "authorization_details": [],
        "bearer": False,
        "max_posture_age": None,
        "delegation": None,
    }


def test_check_names_what_is_wrong_in_each_file_and_exits_1(operator: Operator) -> None:
    good = operator.write("good.toml", HEALTHY)
    bad = operator.write("bad.toml", SMALL.replace("pcrs", "pcr"))
    result = operator.run("policy", "check", bad, good, bad)
    assert result.exit_code == 1
    assert f"{good}: edge-gateway" in result.stdout
    assert "did you mean pcrs?" in result.stderr
    assert "2 of 3 refused" in result.stderr
    refused = operator.run("policy", "check", "--json", bad)
    assert '"valid": false, "reason": "key_unknown"' in refused.stdout


def test_check_of_a_file_that_cannot_be_read_exits_2(operator: Operator) -> None:
    assert operator.run("policy", "check", str(operator.directory / "absent.toml")).exit_code == 2
    assert operator.run("policy", "check", str(operator.directory)).exit_code == 2
    assert operator.run("policy", "check").exit_code == 2


def test_check_needs_no_configuration(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert operator.run("policy", "check", operator.write("a.toml", HEALTHY)).exit_code == 0


def test_apply_puts_a_policy_into_force_under_version_1_with_a_record(operator: Operator) -> None:
    operator.refused("policy", "show", "small")
    said = operator.done("policy", "apply", operator.write("a.toml", V1))
    (shown,) = operator.objects("policy", "show")
    assert said.startswith(f"small@1 sha256:{shown['digest']} is in force")
    assert (shown["name"], shown["version"], shown["source"]) == ("small", 1, V1)
    record = operator.last_record()
    assert (record["chain"], record["policy"], record["decision"]) == ("service", "small@1", "accepted")
    assert record["details"]["verb"] == "policy apply"
    assert record["details"]["digest"] == shown["digest"]


def test_applying_the_same_bytes_again_says_so_and_changes_nothing(operator: Operator) -> None:
    path = operator.write("a.toml", V1)
    operator.done("policy", "apply", path)
    before = operator.admin_records()
    assert "small@1" in (said := operator.done("policy", "apply", path))
    assert "in force already" in said
    assert operator.admin_records() == before
    assert len(operator.objects("policy", "history", "small")) == 1


def test_pd_8_what_is_read_back_is_what_was_written(operator: Operator) -> None:
    operator.done("policy", "apply", operator.write("a.toml", V1))
    assert operator.run("policy", "show", "small").stdout == V1


def test_pd_8_of_two_operators_at_once_neither_change_is_lost(operator: Operator) -> None:
    command = [sys.executable, "-c", "from attestd.cli.main import main; main()", "policy", "apply"]
    named = ["--config", str(operator.directory / "attestd.toml")]
    texts = [f"{SMALL}# {number}\n" for number in range(4)]
    files = [operator.write(f"{number}.toml", text) for number, text in enumerate(texts)]
    running = [subprocess.Popen([*command, file, *named], stderr=subprocess.PIPE) for file in files]
    ended = [(process.communicate()[1], process.returncode) for process in running]
    assert all(status == 0 or b"somebody else" in said for said, status in ended)
    versions = operator.objects("policy", "history", "small")
    assert [each["version"] for each in versions] == [1, 2, 3, 4]
    assert {each["source"] for each in versions} == set(texts)
    assert [each["active"] for each in versions] == [False, False, False, True]
    assert len([each for each in operator.admin_records() if each["policy"]]) == 4


def test_apply_is_all_or_nothing(operator: Operator) -> None:
    good = operator.write("good.toml", HEALTHY)
    bad = operator.write("bad.toml", SMALL.replace("sha256:", "sha1:"))
    assert "pcrs.7[0]" in operator.refused("policy", "apply", good, bad)
    assert "is named small" in operator.refused(
        "policy", "apply", operator.write("a.toml", V1), operator.write("b.toml", V2)
    )
    operator.refused("policy", "apply", good, str(operator.directory / "absent.toml"), status=2)
    assert operator.objects("policy", "show") == []
    operator.done("policy", "apply", good, operator.write("a.toml", V1))
    assert [each["name"] for each in operator.objects("policy", "show")] == ["edge-gateway", "small"]


def test_apply_refuses_a_set_in_which_an_enrolled_device_would_tie(operator: Operator) -> None:
    operator.done("policy", "apply", operator.write("a.toml", V1))
    second = operator.write("b.toml", EVERYONE_TOO)
    operator.add(state="pending")
    assert "gw-1 (other and small)" in operator.refused("policy", "apply", second)
    assert [each["name"] for each in operator.objects("policy", "show")] == ["small"]
    matched = SMALL.replace('"small"\n', '"other"\nmatch.labels = { site = ["plant-1"] }\n')
    operator.done("policy", "apply", operator.write("b.toml", matched))


def test_apply_finds_a_tie_by_labels_and_makers(operator: Operator) -> None:
    operator.add(labels={"site": "plant-1"}, manufacturer="IFX")
    operator.add(OTHER, name="gw-2", labels={"site": "plant-1"}, manufacturer="NTC")
    site = operator.write(
        "site.toml", SMALL.replace('"small"\n', '"site"\nmatch.labels = { site = ["plant-1"] }\n')
    )
    maker = operator.write(
        "maker.toml", SMALL.replace('"small"\n', '"maker"\nmatch.manufacturers = ["IFX"]\n')
    )
    line = operator.refused("policy", "apply", site, maker)
    assert "gw-1 (maker and site)" in line
    assert "gw-2" not in line
    operator.done("policy", "apply", site)


def test_a_retired_device_cannot_tie(operator: Operator) -> None:
    operator.add(state="retired")
    operator.done("policy", "apply", operator.write("a.toml", V1), operator.write("b.toml", EVERYONE_TOO))


def test_history_keeps_every_version_and_says_which_is_in_force(operator: Operator) -> None:
    for text in (V1, V2):
        operator.done("policy", "apply", operator.write("a.toml", text))
    versions = operator.objects("policy", "history", "small")
    assert [(each["version"], each["active"], each["source"]) for each in versions] == [
        (1, False, V1),
        (2, True, V2),
    ]
    assert operator.done("policy", "history", "small").splitlines()[1].endswith("in force")
    assert "absent" in operator.refused("policy", "history", "absent")


def test_pd_3_a_rollback_is_a_new_version_of_the_old_bytes_with_a_record(operator: Operator) -> None:
    for text in (V1, V2):
        operator.done("policy", "apply", operator.write("a.toml", text))
    assert "small@3" in operator.done("policy", "rollback", "small", "1")
    (shown,) = operator.objects("policy", "show")
    assert (shown["version"], shown["source"]) == (3, V1)
    record = operator.last_record()
    assert (record["policy"], record["details"]["restores"]) == ("small@3", "small@1")
    assert "the same document" in operator.done("policy", "rollback", "small", "1")
    assert operator.last_record() == record


def test_a_rollback_to_what_never_was_is_refused(operator: Operator) -> None:
    operator.done("policy", "apply", operator.write("a.toml", V1))
    assert "small@2" in operator.refused("policy", "rollback", "small", "2")
    assert "absent@1" in operator.refused("policy", "rollback", "absent", "1")
    operator.refused("policy", "rollback", "small", "0", status=2)
    operator.refused("policy", "rollback", "small", "one", status=2)


def test_a_rollback_that_would_leave_a_device_undecided_is_refused(operator: Operator) -> None:
    operator.done("policy", "apply", operator.write("a.toml", V1))
    matched = SMALL.replace('"small"\n', '"small"\nmatch.labels = { site = ["plant-1"] }\n')
    operator.done("policy", "apply", operator.write("a.toml", matched))
    operator.done("policy", "apply", operator.write("b.toml", EVERYONE_TOO))
    operator.add()
    assert "gw-1" in operator.refused("policy", "rollback", "small", "1")
    assert operator.objects("device", "show", DEVICE)[0]["policy"] == "other@1"


def test_show_without_policies_says_that_everything_is_refused(operator: Operator) -> None:
    assert "every device is refused" in operator.run("policy", "show").stderr


def test_a_policy_is_applied_with_the_files_that_stand_beside_it(operator: Operator) -> None:
    ima = SMALL + '[ima]\nrequired = true\nallow = ["debian.digests"]\n[boot]\nevent_log = "required"\n'
    path = operator.write("a.toml", ima)
    assert "debian.digests does not stand beside the policy" in operator.refused("policy", "apply", path)
    operator.write("debian.digests", f"sha256:{GOOD_7}  /usr/bin/sh\n")
    text = operator.done("policy", "check", path)
    assert "demands   IMA's list of what ran: 1 digests" in text
    operator.done("policy", "apply", path)
    (before,) = operator.objects("policy", "show")
    assert before["ima"]["files"] == ["debian.digests"]
    operator.write("debian.digests", f"sha256:{GOOD_7}  /usr/bin/dash\n")
    operator.done("policy", "apply", path)
    (after,) = operator.objects("policy", "show")
    assert (after["version"], after["digest"] != before["digest"]) == (before["version"] + 1, True)


def test_components_are_told_by_name_and_variant(operator: Operator) -> None:
    path = operator.write("a.toml", 'name = "edge"\n' + components(until="2027-01-31T00:00:00Z"))
    assert "demands   kernel 6.1.0-49, and in registers 4, 11 nothing unknown" in operator.done(
        "policy", "check", path
    )
    (told,) = operator.objects("policy", "check", path)
    assert told["components"][0]["variants"][0]["until"] == "2027-01-31T00:00:00Z"
    assert told["needs"] == [4, 11]
