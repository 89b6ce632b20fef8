"""Where are the published vectors, and what do they say of themselves?"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent.parent / "vectors"


@dataclass(frozen=True)
class Vector:
    """A folder of evidence from somewhere else; `about` is its expected.json."""

    folder: Path
    about: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    @property
    def nonce(self) -> bytes:
        return bytes.fromhex(self.read("nonce.hex").decode().strip())


def vectors(pattern: str) -> list[Vector]:
    """All vectors whose folder matches, as "quotes/*", in the order of their names."""
    found = sorted(VECTORS.glob(f"{pattern}/expected.json"))
    return [Vector(path.parent, json.loads(path.read_text())) for path in found]
