"""Candidates that are files of their own: they may not be a part of the package."""
