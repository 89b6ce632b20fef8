"""The machine with the TPM: EK, AK, storage key, quote, certify, import, unseal through the ESAPI."""
