"""Operators that compute what is right and break the contract."""
