"""A secret only one TPM can open: credential challenges, policy digests, sealed keys. Software half only."""
