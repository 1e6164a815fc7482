"""What backends whose library blocks have in common: one thread, and a small file of what they must remember. It is no backend itself."""
