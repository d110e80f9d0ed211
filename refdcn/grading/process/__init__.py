"""A candidate in a process of its own, seen from outside."""
