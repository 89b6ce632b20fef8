"""Are kernels, loaders, files and words told as they were measured, and never as they are merely called?"""

import struct

import pytest

from tests.tpm.eventlog.logs import IPL, Logged, LogMaker, efivar, file_path, image_load, secure_boot_log
from tpm.eventlog.efi.device_path import device_path_text, file_of
from tpm.eventlog.events import EventType
from tpm.eventlog.facts.boot import BootFacts, read_facts
from tpm.eventlog.facts.firmware import version_text

APPLICATION = EventType.EV_EFI_BOOT_SERVICES_APPLICATION
TAG = EventType.EV_EVENT_TAG
LOAD_OPTIONS = struct.pack("<II", 0x8F3B22ED, 4) + b"opts"
INITRD = struct.pack("<II", 0x8F3B22EC, 4) + b"disk"


def facts_of(maker: LogMaker) -> BootFacts:
    return read_facts(maker.read(), bank="sha256", registers=None)


def grub(maker: LogMaker, label: str, text: str, *, measured: bytes | None = None) -> LogMaker:
    content = text.encode() if measured is None else measured
    return maker.add(8, IPL, f"{label}{text}\0".encode(), measured=content)


def wide(text: str) -> bytes:
    return text.encode("utf-16-le")


@pytest.mark.parametrize("label", ["grub_cmd: ", "grub_cmd ", "kernel_cmdline: ", "grub_kernel_cmdline "])
@pytest.mark.parametrize("ending", [b"", b"\0"])
def test_what_grub_ran_is_told_as_measured(label: str, ending: bytes) -> None:
    facts = facts_of(grub(LogMaker(), label, "set x=1", measured=b"set x=1" + ending))
    assert [(one.text, one.event) for one in facts.grub.texts] == [("set x=1", 1)]
    assert facts.unexplained[8] == ()


def test_a_text_that_was_not_measured_is_no_fact_and_leaves_a_gap() -> None:
    facts = facts_of(
        grub(LogMaker(), "kernel_cmdline: ", "/vmlinuz quiet", measured=b"/vmlinuz init=/bin/sh")
    )
    assert facts.grub.texts == ()
    assert facts.command_lines == ()
    assert facts.unexplained[8] == (1,)


def test_a_command_line_cannot_be_hidden_behind_another_label() -> None:
    """The true line is called a command, and a command is called the line."""
    maker = grub(LogMaker(), "grub_cmd: ", "/vmlinuz init=/bin/sh")
    facts = facts_of(grub(maker, "kernel_cmdline: ", "/vmlinuz quiet"))
    assert [one.text for one in facts.command_lines] == ["/vmlinuz init=/bin/sh", "/vmlinuz quiet"]


@pytest.mark.parametrize(
    "record",
    [
        Logged(8, EventType.EV_SEPARATOR, b"/vmlinuz init=/bin/sh"),
        Logged(8, EventType.EV_EFI_ACTION, b"/vmlinuz init=/bin/sh"),
        Logged(8, IPL, b"nothing\0", measured=b"/vmlinuz init=/bin/sh"),
        Logged(8, TAG, INITRD, measured=b"/vmlinuz init=/bin/sh"),
    ],
    ids=lambda one: f"{one.kind:x}",
)
def test_a_command_line_cannot_be_hidden_by_its_type(record: Logged) -> None:
    maker = grub(LogMaker(), "kernel_cmdline: ", "/vmlinuz quiet")
    maker.records.append(record)
    assert facts_of(maker).unexplained[8] == (2,)


def test_files_are_facts_by_their_digest() -> None:
    facts = facts_of(LogMaker().add(9, IPL, b"/boot/vmlinuz\0", measured=b"a kernel"))
    (file,) = facts.grub.files
    assert file.name == "/boot/vmlinuz"
    assert facts.grub.texts == ()


@pytest.mark.parametrize("register", [8, 12])
@pytest.mark.parametrize(
    ("data", "measured"),
    [
        (wide("rw quiet"), wide("rw quiet")),
        (wide("rw quiet\0"), wide("rw quiet\0")),
        (wide("rw quiet") + b"\0", wide("rw quiet\0")),
    ],
)
def test_words_given_to_systemds_loaders_are_told(register: int, data: bytes, measured: bytes) -> None:
    facts = facts_of(LogMaker().add(register, IPL, data, measured=measured))
    assert [(one.source, one.text) for one in facts.command_lines] == [("systemd", "rw quiet")]
    assert facts.unexplained[12] == ()
    changed = facts_of(LogMaker().add(register, IPL, wide("rw loud"), measured=measured))
    assert changed.command_lines == ()
    assert register == 8 or changed.unexplained[12] == (1,)


def kernel_image(*sections: tuple[str, bytes]) -> LogMaker:
    maker = LogMaker()
    for name, content in sections:
        maker.add(11, IPL, wide(name + "\0"), measured=name.encode() + b"\0")
        maker.add(11, IPL, wide(name + "\0"), measured=content)
    return maker


def test_sections_of_a_kernel_image_are_told_in_pairs() -> None:
    facts = facts_of(kernel_image((".linux", b"kernel"), (".cmdline", b"rw quiet")))
    assert [(one.name, one.events) for one in facts.uki.sections] == [
        (".linux", (1, 2)),
        (".cmdline", (3, 4)),
    ]
    (line,) = facts.command_lines
    assert line.is_exactly("rw quiet")
    assert not line.is_exactly("rw")


def test_content_does_not_pass_for_a_section() -> None:
    """The content of .osrel is the name of a section, and the next name follows shifted by one."""
    maker = kernel_image((".linux", b"kernel"), (".osrel", b".cmdline\0"), (".sbat", b"rw quiet"))
    facts = facts_of(maker)
    assert [one.name for one in facts.uki.sections] == [".linux", ".osrel", ".sbat"]
    assert facts.command_lines == ()
    maker.records[2] = Logged(11, IPL, wide(".cmdline\0"), measured=b".osrel\0")
    facts = facts_of(maker)
    assert [one.name for one in facts.uki.sections] == [".linux"]
    assert facts.unexplained[11] == (3, 4, 5, 6)


def test_what_linux_was_given_counts_only_where_linux_measures_it() -> None:
    first = (
        LogMaker().add(9, TAG, LOAD_OPTIONS, measured=wide("quiet\0")).add(9, TAG, INITRD, measured=b"disk")
    )
    assert [one.is_exactly("quiet") for one in facts_of(first).command_lines] == [True]
    # The tags are swapped: the disk's content is what the words should have been.
    maker = LogMaker().add(9, TAG, INITRD, measured=wide("init=/bin/sh\0"))
    assert facts_of(maker.add(9, TAG, LOAD_OPTIONS, measured=wide("quiet\0"))).command_lines == ()


def test_an_image_is_a_fact_by_its_digest_and_its_path_is_a_hint() -> None:
    maker = LogMaker().add(4, APPLICATION, image_load(file_path("\\EFI\\shimx64.efi")), measured=b"image")
    maker.add(4, APPLICATION, b"garbage", measured=b"other")
    maker.add(5, APPLICATION, image_load(), measured=b"elsewhere")
    named, unnamed = facts_of(maker).images
    assert named.load is not None
    assert named.load.file == "\\EFI\\shimx64.efi"
    assert unnamed.load is None
    assert (named.event, unnamed.event) == (1, 2)


@pytest.mark.parametrize(
    "path",
    [
        b"\x04\x04\x00\x00",
        b"\x04\x04\xff\xff",
        b"\x04",
        b"\x01\x01\x06\x00\x00\x03" * 100,
        b"\x04\x04\x04\x00" * 5000,
    ],
)
def test_el_10_garbage_for_a_path_is_no_path(path: bytes) -> None:
    assert device_path_text(path) is None
    assert file_of(path) is None


def test_el_10_twin_a_path_is_told() -> None:
    disk = struct.pack("<BBHIQQ16sBB", 4, 1, 42, 1, 0, 0, bytes(16), 2, 2)
    assert (
        device_path_text(disk + file_path("\\a.efi"))
        == f"HD(1,GPT,{'00000000-0000-0000-0000-' + '0' * 12})/\\a.efi"
    )
    assert device_path_text(b"") == ""


def test_el_11_events_of_other_registers_are_recorded() -> None:
    maker = secure_boot_log()
    for register in (8, 9, 11, 12, 13, 14):
        maker.add(register, IPL, b"MokList\0", measured=b"anything")
    facts = facts_of(maker)
    assert facts.secure_boot.enabled is True
    assert [one.name for one in facts.shim_lists] == ["MokList"]


def test_the_firmwares_version_counts_only_before_the_separator() -> None:
    maker = secure_boot_log()
    assert [one.text for one in facts_of(maker).firmware] == ["Test 1.0"]
    version = maker.records[0]
    maker.records[0] = Logged(0, EventType.EV_POST_CODE, b"code", measured=version.data)
    later = maker.add(0, EventType.EV_S_CRTM_VERSION, wide("Better 2.0\0"))
    assert facts_of(later).firmware == ()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (wide("N32ET68W\0"), "N32ET68W"),
        (b"G5B1a", "G5B1a"),
        (bytes(2), ""),
        (bytes.fromhex("1efb6b540c1d5540a4ad4ef4bf17b83a"), "546bfb1e-1d0c-4055-a4ad-4ef4bf17b83a"),
        (b"\x01\x02\x03", "010203"),
    ],
)
def test_a_version_is_shown_as_its_maker_wrote_it(data: bytes, text: str) -> None:
    assert version_text(data) == text


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("register", [1, 5])
def test_boot_options_are_told_and_whether_their_names_were_measured(register: int, whole: bool) -> None:
    option = struct.pack("<IH", 1, 4) + wide("Debian\0") + b"\x7f\xff\x04\0"
    maker = LogMaker()
    for name, content in (("BootOrder", b"\x01\0\x02\0"), ("Boot0001", option)):
        data = efivar(name, content)
        maker.add(register, EventType.EV_EFI_VARIABLE_BOOT, data, measured=data if whole else content)
    options = facts_of(maker).boot_options
    assert options.order == (1, 2)
    (entry,) = options.entries
    assert (entry.name, entry.option.description, entry.name_measured) == ("Boot0001", "Debian", whole)
    maker.records[0].measured = b"something else"
    assert facts_of(maker).boot_options.order is None


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        ([], None),
        (["Invocation"], "invoked"),
        (["Invocation", "Returned with Success"], "succeeded"),
        (["Invocation", "Returned with Failure"], "failed"),
    ],
)
def test_how_the_firmware_handed_over_is_told(actions: list[str], told: str | None) -> None:
    maker = LogMaker().add(4, IPL, b"x")
    for action in actions:
        maker.add(5, EventType.EV_EFI_ACTION, f"Exit Boot Services {action}".encode())
    assert facts_of(maker).hand_over == told
    for record in maker.records[1:]:
        record.measured = b"something else"
    assert facts_of(maker).hand_over is None


def test_a_confidential_machines_facts_come_from_its_own_registers() -> None:
    maker = LogMaker(("sha384",), "ccel").add(
        1, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, efivar("SecureBoot", b"\x01")
    )
    maker.add(1, EventType.EV_SEPARATOR, bytes(4))
    facts = read_facts(maker.read(), bank="sha384", registers=None)
    assert facts.secure_boot.enabled is True
    maker.records[0].register = 2
    assert read_facts(maker.read(), bank="sha384", registers=None).secure_boot.enabled is None


def test_a_changed_type_does_not_shift_names_against_contents() -> None:
    """The name of .cmdline would meet the content of .sbat if what lies between were left out."""
    maker = kernel_image((".linux", b"kernel"), (".cmdline", b"init=/bin/sh"), (".sbat", b"rw quiet"))
    honest = facts_of(maker).uki.sections
    for place in (3, 4):
        maker.records[place] = Logged(11, TAG, INITRD, measured=maker.records[place].measured or b"")
    assert [one for one in facts_of(maker).uki.sections if one not in honest] == []
