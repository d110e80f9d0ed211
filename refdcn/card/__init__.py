"""The proof on a card: what of the CUDA target can only be seen where one is.

`refdcn bench --device cuda --check` runs it from a checkout.
"""
