"""How does a program without privileges run with credentials in files? `attestd agent exec` starts it."""
