"""What every room needs once: each file has one subject."""
