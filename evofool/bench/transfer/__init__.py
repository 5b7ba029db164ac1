"""Transfer: how well the fooling images of one classifier fool others."""
