"""Compositional pattern-producing networks (Stanley 2007): a small graph of functions, asked for a colour at every pixel."""
