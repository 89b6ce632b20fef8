"""HTTP in and out: a route decodes, calls, encodes."""
