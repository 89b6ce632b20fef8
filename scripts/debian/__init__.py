"""The Debian package: how it is built, and how it is tried on a clean system."""
