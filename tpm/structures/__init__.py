"""What the bytes say: one bounded reader; strict, frozen values that keep their bytes; no decisions."""
