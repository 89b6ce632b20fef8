"""What may this object do?

TPMA_OBJECT (TPM 2.0 Part 2, 8.3) and the exact words that this project gives or demands.
"""

FIXED_TPM = 1 << 1
ST_CLEAR = 1 << 2
FIXED_PARENT = 1 << 4
SENSITIVE_DATA_ORIGIN = 1 << 5
USER_WITH_AUTH = 1 << 6
ADMIN_WITH_POLICY = 1 << 7
NO_DA = 1 << 10
ENCRYPTED_DUPLICATION = 1 << 11
RESTRICTED = 1 << 16
DECRYPT = 1 << 17
SIGN = 1 << 18
X509_SIGN = 1 << 19

KNOWN = (
    FIXED_TPM | ST_CLEAR | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | ADMIN_WITH_POLICY
    | NO_DA | ENCRYPTED_DUPLICATION | RESTRICTED | DECRYPT | SIGN | X509_SIGN
)  # fmt: skip
"""Every bit that has a meaning in revision 1.59; the others must be clear."""

RESIDENT = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN
"""The private part was made inside this TPM and cannot leave it."""

AK_ATTRIBUTES = RESIDENT | USER_WITH_AUTH | RESTRICTED | SIGN
CREDENTIAL_KEY_ATTRIBUTES = RESIDENT | USER_WITH_AUTH | SIGN
STORAGE_KEY_ATTRIBUTES = RESIDENT | USER_WITH_AUTH | NO_DA | RESTRICTED | DECRYPT
EK_LOW_ATTRIBUTES = RESIDENT | ADMIN_WITH_POLICY | RESTRICTED | DECRYPT
EK_HIGH_ATTRIBUTES = EK_LOW_ATTRIBUTES | USER_WITH_AUTH

_NAMES = {
    FIXED_TPM: "fixedTPM", ST_CLEAR: "stClear", FIXED_PARENT: "fixedParent",
    SENSITIVE_DATA_ORIGIN: "sensitiveDataOrigin", USER_WITH_AUTH: "userWithAuth",
    ADMIN_WITH_POLICY: "adminWithPolicy", NO_DA: "noDA", ENCRYPTED_DUPLICATION: "encryptedDuplication",
    RESTRICTED: "restricted", DECRYPT: "decrypt", SIGN: "sign", X509_SIGN: "x509sign",
}  # fmt: skip


def describe_attributes(attributes: int) -> str:
    """The set bits by the TCG's names, for sentences: "fixedTPM|restricted|sign"; "none" for zero."""
    return "|".join(name for bit, name in _NAMES.items() if attributes & bit) or "none"
