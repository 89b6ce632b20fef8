"""How do local programs get what this machine holds for them?

Through the SPIFFE Workload API on a Unix socket, and beside it a service of our own for access tokens and the
proofs that go with them. Who asks is told by the kernel.
"""
