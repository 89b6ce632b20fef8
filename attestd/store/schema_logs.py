"""What does the fourth version of the database add: the last log that each device sent, and how far its IMA
list was judged."""

FOURTH = (
    """CREATE TABLE device_logs (
        device_id TEXT PRIMARY KEY REFERENCES devices (device_id) ON DELETE CASCADE,
        sha256 TEXT NOT NULL, content BLOB NOT NULL, kept_at BIGINT NOT NULL)""",
    """CREATE TABLE ima_marks (
        device_id TEXT PRIMARY KEY REFERENCES devices (device_id) ON DELETE CASCADE,
        reset_count BIGINT NOT NULL, restart_count BIGINT NOT NULL, bank TEXT NOT NULL,
        entries BIGINT NOT NULL, value TEXT NOT NULL, padded BIGINT NOT NULL, policy_digest TEXT NOT NULL,
        kept_at BIGINT NOT NULL)""",
)
