"""Who vouches for this TPM, and does the machine itself have what a service needs to see it?

Whom the service trusts is not known here: what is judged is whether the certificate is this key's, and how
far up its own chain leads.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from attestd.agent.doctor.check import Check, Unread
from attestd.agent.errors import plain
from tpm.device.endorsement import Endorsement
from tpm.device.properties import Properties
from tpm.errors import EvidenceError
from tpm.verify.certificate import Certificate, is_signed_by, key_name
from tpm.verify.certificate_reader import read_certificate
from tpm.verify.device_id import device_identifier
from tpm.verify.endorsement_profile import check_profile, stated_maker

_FETCHED = {"AMD": "AMD", "INTC": "Intel"}
"""Makers whose firmware TPMs keep no certificate: it is fetched from the maker, once, by whoever operates."""


def judge_certificate(
    endorsement: Endorsement | Unread, properties: Properties, *, now: int
) -> Iterator[Check]:
    """Is there a certificate, and does it speak of this TPM's key? `now` in milliseconds."""
    name = "ek certificate"
    if isinstance(endorsement, Unread):
        yield Check(name, "fail", f"no endorsement key: {plain(endorsement.why)}", _key_fix(endorsement))
        return
    device_id = device_identifier(endorsement.public.public_key())
    if endorsement.certificate is None:
        maker = _FETCHED.get(properties.manufacturer)
        fix = f"on the service: attestd device certificate {device_id} FILE"
        if maker is None:
            fix += ", or admit this machine by approval (tofu = true)"
        else:
            fix += f", with the one that {maker} gives out for this TPM"
        yield Check(name, "warn", f"none in the TPM, of the key {endorsement.kind}", fix)
        return
    try:
        leaf = read_certificate(endorsement.certificate)
        check_profile(leaf)
    except EvidenceError as error:
        fix = "ask the maker for the right one, then on the service: attestd device certificate"
        yield Check(name, "fail", f"{endorsement.kind}: {error.detail}", fix)
        return
    yield _leaf(name, endorsement, leaf, device_id, now)


def _key_fix(endorsement: Unread) -> str:
    if endorsement.code == "hierarchy_disabled":
        return "enable the endorsement hierarchy in the firmware's set-up"
    if endorsement.code == "tpm_full":
        return "see tpm slots; use the resource manager, device:/dev/tpmrm0"
    return "power the machine off and on; if that does not help, ask the TPM's maker"


def _leaf(name: str, endorsement: Endorsement, leaf: Certificate, device_id: str, now: int) -> Check:
    maker = stated_maker(leaf)
    model = " ".join(plain(each) for each in (maker.manufacturer, maker.model) if each) or "a silent maker"
    said = f"{endorsement.kind} ({key_name(leaf.key)}) by {model}"
    if device_identifier(leaf.key) != device_id:
        fix = "the certificate or the endorsement seed is another TPM's: ask who provisioned this machine"
        return Check(name, "fail", f"{said}, but it speaks of another key than this TPM's", fix)
    moment = datetime.fromtimestamp(now / 1000, UTC)
    if not leaf.not_before <= moment <= leaf.not_after:
        span = f"{leaf.not_before:%Y-%m-%d} to {leaf.not_after:%Y-%m-%d}"
        fix = "see clock; where the time is right, ask the maker for a new one"
        return Check(name, "fail", f"{said}, valid {span} only", fix)
    return Check(name, "ok", f"{said}, of this TPM's key; device {device_id}")


def judge_chain(endorsement: Endorsement | Unread) -> Iterator[Check]:
    """Do the certificates in the TPM lead to a root? Nothing is said where there is no certificate."""
    if isinstance(endorsement, Unread) or endorsement.certificate is None:
        return
    try:
        path = [read_certificate(endorsement.certificate)]
        authorities = [read_certificate(raw) for raw in endorsement.chain]
    except EvidenceError as error:
        fix = "have the service know the maker's authorities: attestd ek-roots import FILE"
        yield Check("ek chain", "warn", error.detail, fix)
        return
    while (above := _issuer(path, authorities)) is not None:
        path.append(above)
    top = path[-1]
    issuer = plain(top.issuer_title)
    if len(path) > 1 and top.subject == top.issuer:
        yield Check("ek chain", "ok", f"complete, to the root {issuer}")
    elif authorities and len(path) == 1:
        fix = f"have the service know {issuer}: attestd ek-roots import FILE"
        said = f"the TPM's {len(authorities)} authorities are not those of its certificate"
        yield Check("ek chain", "warn", said, fix)
    else:
        held = f"{len(path) - 1} of its authorities in the TPM" if authorities else "no authority in the TPM"
        yield Check("ek chain", "ok", f"{held}; the service must know {issuer} (attestd ek-roots list)")


def _issuer(path: Sequence[Certificate], authorities: Sequence[Certificate]) -> Certificate | None:
    """Who signed the last of the path; None at the top, and where nobody here did."""
    last = path[-1]
    for one in authorities:
        if one.subject == last.issuer and one not in path and is_signed_by(last, one.key):
            return one
    return None
