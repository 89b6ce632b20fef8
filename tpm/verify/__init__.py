"""Is it true? Quotes, certified keys, registers, continuity, endorsement chains."""
