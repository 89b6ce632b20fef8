"""What keeps this machine from having an identity? Readings, and judgments over what was read."""
