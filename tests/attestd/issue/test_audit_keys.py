"""Is an audit head believed exactly if a key of ours for audits signed it?"""

from dataclasses import replace
from pathlib import Path

import pytest

from attestd.issue.audit_keys import audit_signer, audit_verifier
from attestd.issue.key_files import create_key
from attestd.store.audit import HeadSigner
from attestd.store.audit_verify import HeadVerifier
from attestd.wire import Problem
from tests.attestd.issue.material import NOW, TRUST_DOMAIN, State, new_keys, new_ring

HEAD = b'{"chain":"service","sequence":1}'


def test_a_head_verifies_under_its_key_and_with_nothing_changed(tmp_path: Path) -> None:
    keys = new_keys(tmp_path / "keys")
    signer: HeadSigner = audit_signer(keys)
    verifier: HeadVerifier = audit_verifier(keys)
    signature = signer.sign(HEAD)
    assert verifier.verify(signer.kid, HEAD, signature)
    assert not verifier.verify(signer.kid, HEAD + b" ", signature)
    assert not verifier.verify(signer.kid, HEAD, signature[:-1] + bytes([signature[-1] ^ 1]))
    for broken in (b"", b"\x30", signature[:-1], signature + b"\0"):
        assert not verifier.verify(signer.kid, HEAD, broken)


def test_a_key_of_another_use_signs_no_head(tmp_path: Path) -> None:
    keys = new_keys(tmp_path / "keys")
    signature = audit_signer(keys).sign(HEAD)
    assert not audit_verifier(keys).verify(keys.signer("jwt").kid, HEAD, signature)
    assert not audit_verifier(keys).verify("", HEAD, signature)


def test_a_retired_key_is_believed_for_what_it_signed_and_signs_no_more(tmp_path: Path) -> None:
    ring, states = new_ring(tmp_path / "keys")
    old = audit_signer(ring.at(NOW))
    signature = old.sign(HEAD)
    added = create_key(tmp_path / "keys", use="audit", alg="ES256", trust_domain=TRUST_DOMAIN, now=NOW)
    states.rows = [
        replace(state, state="retired", retired_at=NOW) if state.use == "audit" else state
        for state in states.rows
    ]
    states.rows.append(State(added.kid, "audit", state="active"))
    keys = ring.at(NOW + 1000)
    assert audit_signer(keys).kid == added.kid
    assert audit_verifier(keys).verify(old.kid, HEAD, signature)


def test_without_an_active_key_no_head_is_signed(tmp_path: Path) -> None:
    ring, states = new_ring(tmp_path / "keys")
    assert audit_signer(ring.at(NOW)).kid
    states.rows = [state for state in states.rows if state.use != "audit"]
    with pytest.raises(Problem) as caught:
        audit_signer(ring.at(NOW + 1000))
    assert caught.value.code == "unavailable"
