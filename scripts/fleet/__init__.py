"""A fleet of machines with software TPMs, each with a real agent, and a power cut that hits all at once."""
