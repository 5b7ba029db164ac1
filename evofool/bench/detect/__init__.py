"""Detectors of what is out of distribution, and how well they tell elites from real images."""
