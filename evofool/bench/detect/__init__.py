"""Out-of-distribution detectors, and how well they separate elites from real images."""
