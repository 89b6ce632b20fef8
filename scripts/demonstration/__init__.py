"""What does it look like when one machine is let in and another refused? `make demo` shows it."""
