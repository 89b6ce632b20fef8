"""Is the TPM there, may it be used, and is it one that attestation can rest on?"""

from collections.abc import Iterator, Mapping

from attestd.agent.doctor.check import Check, Unread
from attestd.agent.doctor.tpm_readings import Node, Nodes, TpmReading
from attestd.agent.errors import plain
from tpm.device.properties import Properties

_SOFTWARE = "IBM"
"""Who registered the reference code as a maker: swtpm, libtpms and what QEMU gives to its machines."""
_STRONG = ("sha256", "sha384", "sha512")
_OTHERS = "switch it on in the firmware's set-up; on this machine: tpm2_pcrallocate sha256:all, and reboot"


def judge_access(nodes: Nodes, tpm: TpmReading | Unread) -> Iterator[Check]:
    """Is there one, and can this user open it?"""
    name = "tpm"
    if not isinstance(tpm, Unread):
        raw = nodes.named is not None and nodes.named.name == "tpm0"
        if raw and any(node.path.name == "tpmrm0" for node in nodes.there):
            said = f"{nodes.tcti} opens, for one program at a time"
            yield Check(name, "warn", said, "name device:/dev/tpmrm0, which several may use")
        else:
            yield Check(name, "ok", f"{nodes.tcti} opens")
    elif tpm.code == "tpm_in_use":
        yield Check(name, "warn", f"cannot be looked at now: {tpm.why}", "look again in a minute")
    elif nodes.named is None:
        fix = "start it, or name this machine's with --tpm device:/dev/tpmrm0"
        yield Check(name, "fail", plain(tpm.why), fix)
    else:
        node = next((each for each in nodes.there if each.path == nodes.named), None)
        yield Check(name, "fail", *(_missing(nodes) if node is None else _refused(nodes, node, tpm)))


def _missing(nodes: Nodes) -> tuple[str, str]:
    """Found and fix where there is no such device file."""
    said = f"there is no {nodes.named}"
    if nodes.kernels == "1":
        return f"{said}: this is a TPM 1.2", "switch the TPM to 2.0 in the firmware's set-up, if it can"
    if nodes.there:
        other = nodes.there[0].path
        return f"{said}, but {other}", f"name device:{other}"
    if nodes.kernels is not None:
        fix = "in a container, hand /dev/tpmrm0 in; elsewhere udev makes it: systemctl status systemd-udevd"
        return f"{said}, though the kernel knows a TPM", fix
    fix = "switch the TPM on in the firmware's set-up (also: fTPM, PTT); a virtual machine needs one added"
    return f"{said}: the kernel knows no TPM", fix


def _refused(nodes: Nodes, node: Node, tpm: Unread) -> tuple[str, str]:
    """Found and fix where opening it, or speaking to it, did not work."""
    if node.refused == "EBUSY":
        who = "; ".join(node.holders) or "another process"
        return f"{node.path} is held by {plain(who)}", "stop that one, or name device:/dev/tpmrm0"
    if node.refused == "EACCES" and node.group_may and node.group != "root":
        said = f"user {nodes.user} may not open {node.path}"
        return said, f"add the user to group {node.group}: usermod -aG {node.group} {nodes.user}"
    if node.refused == "EACCES":
        said = f"only root may open {node.path}"
        return said, "install the package tpm-udev, which gives it to the group tss, and reboot"
    if node.refused == "EPERM":
        fix = "allow it where the container or unit is defined: DeviceAllow=/dev/tpmrm0 rw"
        return f"{node.path} is kept from this container or unit", fix
    if nodes.kernels == "1":
        return "this is a TPM 1.2", "switch the TPM to 2.0 in the firmware's set-up, if it can"
    return plain(tpm.why), "power the machine off and on; if that does not help, clear the TPM"


def judge_version(properties: Properties) -> Iterator[Check]:
    if properties.family.startswith("2"):
        yield Check("tpm version", "ok", f"TPM {plain(properties.family)}")
    else:
        fix = "switch the TPM to 2.0 in the firmware's set-up, if it can"
        yield Check("tpm version", "fail", f"TPM {plain(properties.family) or 'without a version'}", fix)


def judge_maker(properties: Properties) -> Iterator[Check]:
    """Who made it, and is it more than a program?"""
    maker = " ".join(f"{plain(properties.manufacturer)} {plain(properties.vendor)}".split())
    said = f"{maker}, firmware {properties.firmware_version:016x}"
    if properties.manufacturer == _SOFTWARE:
        said = f"a software TPM ({said}): who runs it knows its keys"
        yield Check("tpm maker", "warn", said, "for tests only, or trust the host that runs it")
    else:
        yield Check("tpm maker", "ok", said)


def judge_lockout(properties: Properties) -> Iterator[Check]:
    """Attestation goes on in a lockout; what others keep in the TPM under passwords does not."""
    count = f"{properties.wrong_passwords} of {properties.wrong_limit} wrong passwords"
    if properties.in_lockout:
        fix = f"find who tries; one is forgotten each {properties.wrong_interval} s, all by its owner's word"
        yield Check("lockout", "warn", f"the TPM is locked: {count}", fix)
    elif properties.wrong_passwords:
        fix = "find who tries passwords at this TPM; no attestd agent does"
        yield Check("lockout", "warn", count, fix)
    else:
        yield Check("lockout", "ok", "no wrong passwords")


def judge_banks(allocation: Mapping[str, tuple[int, ...]] | Unread) -> Iterator[Check]:
    name = "pcr banks"
    if isinstance(allocation, Unread):
        yield Check(name, "fail", plain(allocation.why), "power the machine off and on")
        return
    used = [bank for bank, pcrs in allocation.items() if pcrs]
    said = ", ".join(used) or "none"
    strong = [bank for bank in _STRONG if bank in used]
    if not strong:
        idle = "" if "sha256" in allocation else "; this TPM has no sha256"
        yield Check(name, "fail", f"{said} in use, and none that may be quoted{idle}", _OTHERS)
    elif "sha256" not in strong:
        yield Check(name, "warn", f"{said} in use, and not sha256, which most policies speak of", _OTHERS)
    elif missing := sorted(set(range(16)) - set(allocation["sha256"])):
        listed = ", ".join(map(str, missing))
        yield Check(name, "warn", f"sha256 lacks the registers {listed}", _OTHERS)
    else:
        yield Check(name, "ok", f"{said} in use")


def judge_leavings(leavings: tuple[int, ...] | Unread, tcti: str) -> Iterator[Check]:
    """Objects and sessions that programs left: a TPM has three slots."""
    name = "tpm slots"
    if isinstance(leavings, Unread):
        yield Check(name, "warn", plain(leavings.why), "power the machine off and on")
    elif leavings:
        listed = ", ".join(f"{handle:#010x}" for handle in leavings)
        fix = "tpm2_flushcontext -t -l -s, if no other program is at the TPM"
        if not tcti.startswith("device:/dev/tpmrm"):
            fix += "; the resource manager (device:/dev/tpmrm0) keeps programs apart"
        yield Check(name, "warn", f"taken by what other programs loaded or left: {listed}", fix)
    else:
        yield Check(name, "ok", "nothing is left in the TPM")
