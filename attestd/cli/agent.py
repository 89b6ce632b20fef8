"""Which of the device's verbs does the user want?

Each is a module of its own, agent_VERB, "-" written "_", whose `command` it is: an agent without privileges
that asks for its identity has no TPM to load a library for.
"""

from __future__ import annotations

from attestd.cli.lazy import Lazy

VERBS = {
    "join": "Make this machine a device of a service and see it accepted, in one go.",
    "doctor": "Look at everything that an identity rests on, and say what is wrong and what helps.",
    "enroll": "Make this machine a device of the service.",
    "attest": "Prove how this machine booted and write what its policy grants.",
    "run": "Attest at boot and from then on, and serve what this machine holds to its programs.",
    "status": "Say where this machine is enrolled and how its last attestation ended.",
    "exec": "Run a program with credentials in files that are kept fresh while it runs.",
    "token": "Get an access token bound to a key in the TPM, and print it.",
    "install-service": "Write the systemd units of the agent.",
    "unseal": "Write the secret of a sealed key to standard output.",
}
"""Every verb with its line of help."""

command = Lazy(
    "agent",
    VERBS,
    module="attestd.cli.agent_{}",
    help="The device's side: join, run, hand out credentials, unseal.",
)
