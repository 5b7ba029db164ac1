"""The report of a benchmark, section by section."""
