"""TPM 2.0 evidence as a library: what the bytes say and whether it is true. No web, no database, no policy.
"""
