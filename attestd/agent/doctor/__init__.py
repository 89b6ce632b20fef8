"""What is it about this machine that keeps it from an identity?"""
