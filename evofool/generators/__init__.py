"""Decoders whose codes are genomes: trained on real images, kept as files."""
