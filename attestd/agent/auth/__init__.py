"""Auth objects for HTTP clients that agents use: a file for each library, which alone imports it."""
