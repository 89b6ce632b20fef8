"""The command line: `attestd NOUN VERB`, one file a noun, lazily loaded."""
