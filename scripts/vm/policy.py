"""What does the security team accept? Predicted from the image, before any machine has started it."""

from collections.abc import Sequence

from scripts.vm.service import AUDIENCE
from scripts.vm.uki import Image

_HEAD = """\
name = "gateway"
description = "Gateways that start a released kernel image with Secure Boot"
disclose = "findings"

[boot]
event_log = "required"
secure_boot = true
command_line = ["{command_line}"]

[actions]                                      # what the firmware may say in between
4 = ["Calling EFI Application from Boot Option", "Returning from EFI Application from Boot Option"]

[[component]]                                  # what it may start; nothing else
name = "kernel-image"
pcrs = [4]
"""

_VARIANT = """\
  [[component.variant]]
  name = "{name}"
  digests = ["sha256:{digest}"]
"""

_REST = f"""
[[grant]]
agent = "telemetry"
formats = ["x509-svid", "client-attestation", "wit-svid"]
ttl = "30m"
key = "any"
audiences = ["{AUDIENCE}"]

[[grant]]
agent = "console"
formats = ["x509-svid", "client-attestation"]
ttl = "30m"
key = "any"
audiences = ["{AUDIENCE}"]

[[seal]]                                       # opens with this image and this Secure Boot only
name = "data"
kind = "secret-32"
pcrs = [4, 7]
"""


def policy(images: Sequence[Image]) -> str:
    """The policy that accepts these images, all started with the one command line."""
    (command_line,) = {image.kernel.command_line for image in images}
    variants = (_VARIANT.format(name=image.kernel.version, digest=image.digest) for image in images)
    return _HEAD.format(command_line=command_line) + "".join(variants) + _REST
