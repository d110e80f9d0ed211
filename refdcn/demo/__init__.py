"""Rotated digits: does a deformable network learn faster and end more accurate?

`refdcn demo rotated-digits` runs it; needs `pip install "refdcn[demo]"`.
"""
