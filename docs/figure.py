"""Draws the README's figure, docs/_static/operator-light.svg and -dark.svg.

python docs/figure.py
"""

from pathlib import Path

import pictures

pictures.draw(Path(__file__).parent / "_static", [pictures.operator])
