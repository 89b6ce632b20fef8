"""What is kept: one store in portable SQL over two thin engines."""
