"""The steps of one attestation, a file each, in the order of the walk in `attestd/attest.py`."""
