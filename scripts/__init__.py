"""What is run beside the program: set-up, demo, benchmark."""
