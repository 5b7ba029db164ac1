"""Hostile inputs for everything that reads a file, an answer or an option which may come from anyone.

The property: the code works, or raises one of its own errors (EvofoolError, GenomeError). It never raises another error,
hangs, takes over 1 GB of memory or 10 s, writes outside its folder, changes a file that it only reads, or prints a character
that controls the terminal. `test_fuzz.py` tries few cases with every test run, `python -m tests.fuzz` thousands.
"""
