"""What does the second version of the database add: tokens, and the keys by which clients are known?

It only expands. A credential that an older version recorded has no `key_jwk`: it authenticates no client, and
its device's next attestation gives one that does.
"""

_CREDENTIALS = (
    "ALTER TABLE credentials ADD COLUMN key_jwk TEXT",
    "ALTER TABLE credentials ADD COLUMN resident BIGINT NOT NULL DEFAULT 0",
    "CREATE INDEX credentials_client ON credentials (spiffe_id, key_thumbprint, expires_at)",
)

_TOKENS = (
    """CREATE TABLE tokens (
        token_id TEXT PRIMARY KEY, device_id TEXT NOT NULL, client_id TEXT NOT NULL, agent TEXT NOT NULL,
        subject TEXT NOT NULL, subject_issuer TEXT, audience TEXT NOT NULL, scope TEXT NOT NULL,
        authorization_details TEXT,
        confirmation TEXT NOT NULL, actors TEXT NOT NULL, depth BIGINT NOT NULL,
        credential_id TEXT NOT NULL, attestation_id TEXT NOT NULL, parents TEXT NOT NULL,
        reset_count BIGINT NOT NULL, restart_count BIGINT NOT NULL, root_sha256 TEXT,
        policy_name TEXT NOT NULL, policy_version BIGINT NOT NULL,
        issued_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,
        revoked_at BIGINT, revoked_reason TEXT)""",
    "CREATE INDEX tokens_device ON tokens (device_id, expires_at)",
    "CREATE INDEX tokens_expiry ON tokens (expires_at)",
    # The same as `parents`, to be walked in both directions.
    """CREATE TABLE token_parents (
        token_id TEXT NOT NULL REFERENCES tokens (token_id) ON DELETE CASCADE, parent_id TEXT NOT NULL,
        PRIMARY KEY (token_id, parent_id))""",
    "CREATE INDEX token_parents_parent ON token_parents (parent_id)",
)

SECOND = _CREDENTIALS + _TOKENS
