"""What does the first version of the database look like?

TEXT, BIGINT and BLOB only, spelled so that both engines understand them. Times are milliseconds since the
epoch. A TPM's unsigned 64-bit numbers do not fit BIGINT and are sixteen hexadecimal digits. `meta` is made by
the migrations themselves.
"""

_DEVICES = (
    """CREATE TABLE devices (
        device_id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, state TEXT NOT NULL, assurance TEXT NOT NULL,
        manufacturer TEXT, model TEXT, version TEXT,
        ek_public BLOB, ek_certificate BLOB, ek_chain TEXT NOT NULL, root_sha256 TEXT,
        ak_public BLOB, ak_name TEXT UNIQUE, hostname TEXT,
        reset_count BIGINT, restart_count BIGINT, clock TEXT, firmware_version TEXT,
        boot_id TEXT, safe BIGINT,
        judged_reset BIGINT, judged_restart BIGINT, judged_clock TEXT, judged_at BIGINT,
        posture TEXT, posture_attestation TEXT, posture_at BIGINT, posture_until BIGINT,
        created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, revision BIGINT NOT NULL)""",
    "CREATE INDEX devices_state ON devices (state, created_at)",
    """CREATE TABLE device_labels (
        device_id TEXT NOT NULL REFERENCES devices (device_id) ON DELETE CASCADE, key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (device_id, key))""",
)

_SPENT = (
    """CREATE TABLE spent_nonces (
        nonce_sha256 BLOB PRIMARY KEY, spent_at BIGINT NOT NULL, expires_at BIGINT NOT NULL)""",
    "CREATE INDEX spent_nonces_expiry ON spent_nonces (expires_at)",
    """CREATE TABLE spent_enrollments (
        enrollment_sha256 TEXT PRIMARY KEY, device_id TEXT NOT NULL, ak_name TEXT NOT NULL,
        expires_at BIGINT NOT NULL)""",
    "CREATE INDEX spent_enrollments_expiry ON spent_enrollments (expires_at)",
)

_ATTESTATIONS = (
    """CREATE TABLE attestations (
        attestation_id TEXT PRIMARY KEY, device_id TEXT NOT NULL, request_sha256 TEXT NOT NULL,
        evidence_sha256 TEXT,
        outcome TEXT NOT NULL, code TEXT, findings TEXT NOT NULL,
        policy_name TEXT, policy_version BIGINT, policy_digest TEXT,
        opened_at BIGINT NOT NULL, finished_at BIGINT)""",
    "CREATE INDEX attestations_device ON attestations (device_id, outcome, finished_at)",
    "CREATE INDEX attestations_outcome ON attestations (outcome, opened_at)",
    """CREATE TABLE credentials (
        credential_id TEXT PRIMARY KEY, attestation_id TEXT NOT NULL, device_id TEXT NOT NULL,
        agent TEXT NOT NULL,
        format TEXT NOT NULL, spiffe_id TEXT NOT NULL, key_thumbprint TEXT,
        issued_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, reset_count BIGINT NOT NULL,
        restart_count BIGINT NOT NULL,
        policy_name TEXT NOT NULL, policy_version BIGINT NOT NULL, root_sha256 TEXT,
        revoked_at BIGINT, revoked_reason TEXT)""",
    "CREATE INDEX credentials_device ON credentials (device_id, expires_at)",
    "CREATE INDEX credentials_expiry ON credentials (expires_at)",
    "CREATE INDEX credentials_root ON credentials (root_sha256, expires_at)",
    "CREATE INDEX credentials_key ON credentials (key_thumbprint, expires_at)",
    """CREATE TABLE sealed_keys (
        sealed_id TEXT PRIMARY KEY, attestation_id TEXT NOT NULL, device_id TEXT NOT NULL, name TEXT NOT NULL,
        version BIGINT NOT NULL, kind TEXT NOT NULL, parent TEXT NOT NULL, policy_digest TEXT NOT NULL,
        public_name TEXT NOT NULL, created_at BIGINT NOT NULL, UNIQUE (device_id, name, version))""",
)

_POLICIES = (
    """CREATE TABLE policy_versions (
        name TEXT NOT NULL, version BIGINT NOT NULL, digest TEXT NOT NULL,
        source BLOB NOT NULL, files TEXT NOT NULL,
        applied_at BIGINT NOT NULL, applied_by TEXT NOT NULL, PRIMARY KEY (name, version))""",
    "CREATE TABLE active_policies (name TEXT PRIMARY KEY, version BIGINT NOT NULL)",
)

_SIGNING_KEYS = (
    """CREATE TABLE signing_keys (
        kid TEXT PRIMARY KEY, key_use TEXT NOT NULL, alg TEXT NOT NULL,
        state TEXT NOT NULL, fingerprint TEXT NOT NULL,
        created_at BIGINT NOT NULL, published_at BIGINT NOT NULL, activated_at BIGINT, retired_at BIGINT,
        last_expiry BIGINT NOT NULL)""",
)

_AUDIT = (
    """CREATE TABLE audit_records (
        chain TEXT NOT NULL, sequence BIGINT NOT NULL, time BIGINT NOT NULL,
        event TEXT NOT NULL, decision TEXT NOT NULL,
        code TEXT, request_id TEXT, device_id TEXT, record TEXT NOT NULL, hash BLOB NOT NULL,
        PRIMARY KEY (chain, sequence))""",
    "CREATE INDEX audit_records_time ON audit_records (time, chain, sequence)",
    "CREATE INDEX audit_records_device ON audit_records (device_id, time)",
    "CREATE INDEX audit_records_request ON audit_records (request_id)",
    """CREATE TABLE audit_heads (
        chain TEXT PRIMARY KEY, sequence BIGINT NOT NULL, hash BLOB NOT NULL,
        time BIGINT NOT NULL, epoch BIGINT NOT NULL,
        kid TEXT NOT NULL, signature BLOB NOT NULL)""",
)

FIRST = _DEVICES + _SPENT + _ATTESTATIONS + _POLICIES + _SIGNING_KEYS + _AUDIT
