"""The device's side on a machine that really boots: firmware, Secure Boot, kernel, systemd, in QEMU."""
