"""Elites taken out of a run, as data sets for others."""
