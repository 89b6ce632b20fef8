"""What do the UEFI structures say that events carry? Bounded parsers without decisions."""
