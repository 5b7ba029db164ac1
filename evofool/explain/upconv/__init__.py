"""Inverting a layer by a decoder that is trained for it (Dosovitskiy & Brox 2016): at once instead of by a search."""
