"""Many runs as jobs, in this process or by workers: a list of plain runs (sweep.py), or the cells of a benchmark."""
