"""Classifiers behind a server, and servers of classifiers."""
