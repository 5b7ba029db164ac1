"""The search: archive, evaluation of a batch, and the algorithm that DEAP drives."""
