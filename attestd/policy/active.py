"""Which policies are in force?"""

from dataclasses import dataclass

from attestd.policy.document import Policy


@dataclass(frozen=True, slots=True)
class ActivePolicy:
    """A policy document in force, and the version under which it was applied."""

    document: Policy
    version: int

    @property
    def label(self) -> str:
        """`name@version`, as results, credentials and audit records call it."""
        return f"{self.document.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class ActivePolicies:
    """All policies in force at one generation of the store."""

    generation: int
    policies: tuple[ActivePolicy, ...]

    @property
    def documents(self) -> tuple[Policy, ...]:
        """The documents alone, for choosing among them."""
        return tuple(policy.document for policy in self.policies)

    def active(self, document: Policy) -> ActivePolicy:
        """The policy of this document."""
        return next(policy for policy in self.policies if policy.document is document)
