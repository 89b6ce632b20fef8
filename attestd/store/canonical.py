"""How is a value spelled where its bytes are hashed, signed or kept?"""

import json
from typing import Any


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted members, no spaces, printable ASCII only.

    Nothing that a stranger chose (a line break, a terminal's escape, U+2028) is in it as such, so a record is
    one line whatever it says. Floats that are no numbers are refused with ValueError.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
