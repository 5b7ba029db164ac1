"""Gradient ascent as objective x parameterisation x transforms, per item, batched (after Lucid; Olah et al. 2017)."""
