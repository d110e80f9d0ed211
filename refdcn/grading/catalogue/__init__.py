"""Mistakes by name, each an edit of one step of the operator."""
