"""Hostile bytes for every parser: seeded mutations, a kept corpus, and limits of time and memory."""
