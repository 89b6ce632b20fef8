"""How does a machine keep its identity for years? What runs all the time, and what it does when."""
