"""A healthy policy, and the same with one thing changed."""

import pytest

from attestd.policy.document import Policy, load_policy
from tpm.errors import PolicyError

GOOD_0 = "11" * 32
GOOD_7 = "77" * 32
OTHER_7 = "78" * 32

HEALTHY = f"""\
name = "edge-gateway"
description = "Gateways"
bank = "sha256"
disclose = "findings"

[match]
labels = {{ site = ["plant-1", "plant-2"] }}
manufacturers = ["IFX", "id:00001014"]

[pcrs]
0 = ["sha256:{GOOD_0}"]
7 = ["sha256:{GOOD_7}", "sha256:{OTHER_7}"]

[clock]
on_reset = "reject"

[[grant]]
agent = "telemetry"
spiffe_id = "spiffe://{{trust_domain}}/agent/{{agent}}/{{device_id}}"
formats = ["x509-svid", "wit-svid"]
ttl = "10m"
key = "tpm"

[[grant]]
agent = "telemetry"
formats = ["jwt-svid"]
ttl = "5m"
key = "any"
audiences = ["https://ingest.example.org"]

[[seal]]
name = "disk"
kind = "secret-32"
pcrs = [9, 0]
"""

SMALL = f"""\
name = "small"

[pcrs]
7 = ["sha256:{GOOD_7}"]
"""


def changed(old: str, new: str) -> str:
    """HEALTHY with this text, which must occur, replaced once."""
    assert old in HEALTHY, old
    return HEALTHY.replace(old, new, 1)


def load(text: str) -> Policy:
    return load_policy(text.encode(), {})


def refused(text: str) -> PolicyError:
    """The refusal of this document, which must be one."""
    with pytest.raises(PolicyError) as caught:
        load(text)
    return caught.value


def named(name: str, match: str = "", *, bank: str = "sha256", pcrs: str = "7", seals: str = "") -> Policy:
    """A small policy of this name, [match] and bank that names these registers."""
    size = {"sha256": 32, "sha384": 48, "sha512": 64}[bank]
    lines = [f'name = "{name}"', f'bank = "{bank}"', match, "[pcrs]"]
    lines += [f'{register} = ["{bank}:{"ab" * size}"]' for register in pcrs.split()]
    return load("\n".join([*lines, seals]))
