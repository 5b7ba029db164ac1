"""The gallery: a local web server that shows runs, benchmarks and explanations in a browser."""
