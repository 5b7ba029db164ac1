"""How images look, in figures, beside real ones."""
