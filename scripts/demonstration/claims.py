"""Is what the demonstration shows so?"""


class Disappointed(Exception):
    """Something was not as the demonstration claims."""


def claim(holds: bool, otherwise: str) -> None:
    """Ends the demonstration with this sentence unless it holds."""
    if not holds:
        raise Disappointed(otherwise)
