"""What did the machine boot? Firmware and userspace event logs, their replay, and the facts in them."""
