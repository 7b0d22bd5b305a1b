"""What runs leave on disk, and what the papers printed."""
