"""Asks machines for evidence, appraises it, and grants what the policy allows."""
