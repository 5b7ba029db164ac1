"""Transfer: classifiers asked about each other's elites."""
