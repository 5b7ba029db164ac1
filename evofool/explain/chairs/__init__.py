"""Chairs that a network draws from class, view and transformation (Dosovitskiy, Springenberg & Brox 2015)."""
