"""Compositional pattern-producing networks (Stanley 2007): small graphs of functions that give each pixel its colour."""
