"""Functions on another library's tensors, made functions on NumPy arrays."""
