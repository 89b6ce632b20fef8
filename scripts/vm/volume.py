"""How does an operator give a machine an encrypted volume that its TPM opens?

As the head of attestd-unseal@.service says, typed at the console: the sealed key goes where the initrd finds
it, the volume gets it beside a passphrase that is kept elsewhere.
"""

from scripts.demonstration.claims import claim
from scripts.vm.console import Console

DEVICE = "/dev/disk/by-id/virtio-data"
SEALED = "/efi/attestd/data.json"
TREASURE = "kept since the first boot"

_PASSPHRASE = "correct horse battery staple"
# The key has 256 random bits; a slow derivation protects nothing and takes minutes in an emulator.
_QUICK = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000"

_ASK = "attestd agent attest --seal data --out /run/sealed"


def make_volume(console: Console) -> None:
    """Ask for a sealed key, make the volume, put something into it."""
    ask(console)
    _do(console, f"printf '{_PASSPHRASE}' >/run/passphrase")
    _do(console, f"cryptsetup luksFormat --batch-mode --type luks2 {_QUICK} {DEVICE} /run/passphrase")
    add_key(console)
    _do(console, f"cryptsetup open --key-file /run/key {DEVICE} data && mkfs.ext4 -q /dev/mapper/data")
    _do(console, "mkdir -p /srv/data && mount /dev/mapper/data /srv/data")
    _do(console, f"echo '{TREASURE}' >/srv/data/treasure && umount /srv/data && cryptsetup close data")


def ask(console: Console) -> None:
    """A new sealed key of the policy, to where the next boot's initrd finds it."""
    _do(console, f"{_ASK} && cp /run/sealed/data.seal.json {SEALED} && sync")


def add_key(console: Console) -> None:
    """What the sealed key opens to becomes a key of the volume; the passphrase opens it for that."""
    _do(console, f"printf '{_PASSPHRASE}' >/run/passphrase")
    _do(console, f"attestd agent unseal {SEALED} >/run/key")
    _do(console, f"cryptsetup luksAddKey {_QUICK} --key-file /run/passphrase {DEVICE} /run/key")


def opens(console: Console) -> tuple[bool, str]:
    """Does the sealed key open the volume now, and what is said?"""
    test = f"cryptsetup open --test-passphrase --key-file /run/now {DEVICE}"
    said = console.run(f"attestd agent unseal {SEALED} >/run/now && {test}")
    return said.status == 0, said.text


def is_mounted(console: Console) -> tuple[bool, str]:
    """Was the volume opened and mounted by the boot itself?"""
    said = console.run("cat /srv/data/treasure")
    return said.text.strip() == TREASURE, said.text


def _do(console: Console, command: str) -> None:
    said = console.run(command)
    claim(said.status == 0, f"at the console `{command}` ended with {said.status}: {said.text}")
