"""Is this request an attested agent's? For those who are called; it imports nothing else of ours."""
