"""What does the third version of the database add: makers that nobody trusts yet, and certificates that the
operator has and the TPM has not."""

THIRD = (
    """CREATE TABLE quarantined_makers (
        issuer_sha256 TEXT PRIMARY KEY, issuer TEXT NOT NULL, manufacturer TEXT, model TEXT,
        certificate BLOB NOT NULL, chain TEXT NOT NULL,
        times BIGINT NOT NULL, first_at BIGINT NOT NULL, last_at BIGINT NOT NULL)""",
    "CREATE INDEX quarantined_makers_age ON quarantined_makers (last_at)",
    """CREATE TABLE supplied_certificates (
        device_id TEXT PRIMARY KEY, certificate BLOB NOT NULL, chain TEXT NOT NULL,
        supplied_by TEXT NOT NULL, supplied_at BIGINT NOT NULL)""",
)
