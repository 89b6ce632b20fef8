"""What did this machine run? The measurement lists of Linux's Integrity Measurement Architecture (IMA)."""
