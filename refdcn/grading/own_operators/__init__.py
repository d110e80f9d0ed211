"""Implementations of refdcn's own, called as a candidate is called."""
