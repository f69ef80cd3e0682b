"""What one process can do alone: bytes, keys, records."""
