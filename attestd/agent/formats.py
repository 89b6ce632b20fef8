"""Which credentials may an agent ask for, and what are they called as files?"""

SUFFIXES = {
    "x509-svid": "svid.pem",
    "wit-svid": "wit.jwt",
    "jwt-svid": "jwt",
    "client-attestation": "attestation.jwt",
}
"""By the format of a credential, how its file's name ends."""
