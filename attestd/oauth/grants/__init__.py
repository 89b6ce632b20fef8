"""For what is a token asked? One grant type a file."""
