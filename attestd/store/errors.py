"""What can be wrong with the store itself, and who must act?"""


class StoreError(Exception):
    """Base of all. What a *row* says is never an error: functions of the store answer with a value."""


class StoreUnavailable(StoreError):
    """Locked, unreachable, full, damaged or read-only: try again later (503).

    Nothing may be answered as if it had been written. Whether it was written is unknown only when the commit
    itself broke, so a nonce may have been spent; it is never the other way round.
    """


class NewerDatabase(StoreError):
    """A newer version of attestd has written this database; this one must not touch it."""


class NoTables(StoreError):
    """The database is empty: nothing has made its tables yet."""
