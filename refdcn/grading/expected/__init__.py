"""What must come, and how far from it is still right."""
