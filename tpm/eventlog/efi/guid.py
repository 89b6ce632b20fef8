"""Which GUID means what?

On the wire the first three fields are little-endian (UEFI 2.10, appendix A); here a GUID is its 16 wire
bytes.
"""

import uuid


def guid(text: str) -> bytes:
    """The wire bytes of a GUID as it is written."""
    return uuid.UUID(text).bytes_le


def guid_text(raw: bytes) -> str:
    """A GUID of 16 bytes as it is written, in lower case."""
    return str(uuid.UUID(bytes_le=raw))


GLOBAL_VARIABLE = guid("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY_DATABASE = guid("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
SHIM_LOCK = guid("605dab50-e046-4300-abb6-3dd810dd8b23")

CERT_X509 = guid("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
CERT_SHA256 = guid("c1c41626-504c-4092-aca9-41f936934328")
CERT_SHA1 = guid("826ca512-cf10-4ac9-b187-be01496631bd")
CERT_SHA384 = guid("ff3e5307-9fd0-48c9-85f1-8ad56c701e01")
CERT_SHA512 = guid("093e0fae-a6c4-4f50-9f1b-d41e2b89c19a")
CERT_RSA2048 = guid("3c5766e8-269c-4e34-aa14-ed776e85b3b6")
CERT_X509_SHA256 = guid("3bd2a492-96c0-4079-b420-fcf98ef103ed")

SMBIOS_TABLE = guid("eb9d2d31-2d88-11d3-9a16-0090273fc14d")
SMBIOS3_TABLE = guid("f2fd1544-9794-4a2c-992e-e5bbcf20e394")
ACPI20_TABLE = guid("8868e871-e4f1-11d3-bc22-0080c73c8881")

DBX_SVN_OWNER = guid("9d132b6c-59d5-4388-ab1c-185cfcb2eb92")
DBX_SVN_BOOT_MANAGER = guid("9d132b61-59d5-4388-ab1c-185cfcb2eb92")
"""Microsoft's entries of dbx that are no hashes but say which versions of the boot manager are revoked."""
