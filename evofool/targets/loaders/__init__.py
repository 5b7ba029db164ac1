"""A module for each way to get a classifier from files, packages or code: load(spec) returns it as a Target."""
