"""One file for each kind of input that may come from anyone."""
