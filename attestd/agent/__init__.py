"""The device's side: enrol, attest, keep, deliver. Needs no web framework."""
