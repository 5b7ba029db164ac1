"""Canvas genomes: pixels that are varied by operators on the whole picture, begun from CPPNs, waves or noise."""
