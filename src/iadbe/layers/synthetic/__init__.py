"""Synthetic defects: masks and the textures that fill them."""
