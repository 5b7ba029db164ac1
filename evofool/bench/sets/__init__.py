"""Existing sets of fooling images and their scores."""
