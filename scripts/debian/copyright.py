"""Who may copy what is in the package? Prints Debian's copyright file for attestd and what comes with it.

Their licence texts lie beside their code, in the `licenses` folders of their metadata.
"""

import sys
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

PLACE = "usr/lib/attestd/lib/python3.11/site-packages"

HEAD = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: attestd
Comment:
 The packages below usr/lib/attestd are other people's, unchanged but for being
 compiled. Whose each is and its licence's text is in its own folder there:
 NAME-VERSION.dist-info. The short names below are as their authors give them.

Files: *
Copyright: 2026 the authors of attestd
License: Apache-2.0
"""

FOOT = """\
License: Apache-2.0
 Licensed under the Apache License, Version 2.0. On Debian systems its text is in
 /usr/share/common-licenses/Apache-2.0.
"""


def licence_of(metadata: Message) -> str:
    """As its author gives it: an SPDX expression, the classifiers' last words, or `License`'s first line."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    prefix = "License :: OSI Approved :: "
    classified = [one.removeprefix(prefix) for one in metadata.get_all("Classifier", []) if prefix in one]
    if classified:
        return " and ".join(classified)
    lines = str(metadata.get("License", "")).strip().splitlines()
    return lines[0] if lines else "as its metadata says"


def stanzas(site: Path) -> str:
    """One stanza for each package of others, by name."""
    written = []
    for path in sorted(site.glob("*.dist-info/METADATA")):
        metadata = HeaderParser().parsestr(path.read_text(encoding="utf-8"))
        name, version = metadata["Name"], metadata["Version"]
        if name == "attestd-tpm":
            continue
        author = metadata.get("Author") or metadata.get("Author-email") or f"the authors of {name}"
        written.append(
            f"Files: {PLACE}/{path.parent.name}/*\n"
            f"Copyright: {' '.join(author.split())}\n"
            f"License: {licence_of(metadata)}\n"
            f"Comment: {name} {version}\n"
        )
    return "\n".join(written)


if __name__ == "__main__":
    sys.stdout.write("\n".join([HEAD, stanzas(Path(sys.argv[1])), FOOT]))
