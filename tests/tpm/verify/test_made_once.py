"""Is holding a verified value the proof that its verification ran?

Each class whose name begins with Verified, and the attestation key, is constructed in exactly one function of
the product.
"""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("tpm", "attestd")
ALSO = {"AttestationKey"}
MAKERS = {
    "VerifiedQuote": "tpm/verify/quote.py:verify_quote",
    "VerifiedPcrs": "tpm/verify/pcrs.py:verify_pcrs",
    "VerifiedKey": "tpm/verify/certified.py:verify_certified_key",
    "VerifiedEndorsement": "tpm/verify/endorsement.py:_verified",
    "VerifiedAttestationCertificate": "tpm/verify/attestation_certificate.py:verify_ak_certificate",
    "VerifiedIdentity": "tpm/verify/attestation_certificate.py:verify_idevid_iak",
    "VerifiedMeasurements": "tpm/ima/verify.py:verify_measurements",
    "AttestationKey": "tpm/verify/keys.py:accept_attestation_key",
}


class Constructions(ast.NodeVisitor):
    """Where classes are defined and called, with the function around."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.around: list[str] = []
        self.defined: set[str] = set()
        self.made: dict[str, list[str]] = defaultdict(list)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.defined.add(node.name)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.around.append(node.name)
        self.generic_visit(node)
        self.around.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        self.made[called].append(f"{self.path}:{self.around[-1] if self.around else 'module'}")
        self.generic_visit(node)


def constructions(source: str, path: str) -> Constructions:
    visitor = Constructions(path)
    visitor.visit(ast.parse(source))
    return visitor


def product() -> list[Constructions]:
    files = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return [constructions(file.read_text(), file.relative_to(ROOT).as_posix()) for file in files]


def test_each_verified_value_is_made_in_one_function_only() -> None:
    found = product()
    guarded = {name for file in found for name in file.defined if name.startswith("Verified") or name in ALSO}
    made = {name: {place for file in found for place in file.made[name]} for name in guarded}
    assert MAKERS.keys() <= guarded
    assert {name: places for name, places in made.items() if len(places) != 1} == {}
    assert {name: next(iter(made[name])) for name in MAKERS} == MAKERS


def test_the_test_sees_a_second_maker() -> None:
    maker, shortcut = "def verify(): return VerifiedX()", "async def shortcut(): return a.VerifiedX()"
    seen = constructions(f"{maker}\n{shortcut}\n", "x.py")
    assert seen.made["VerifiedX"] == ["x.py:verify", "x.py:shortcut"]
