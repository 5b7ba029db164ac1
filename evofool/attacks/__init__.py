"""Published methods over ascend/, by gradient or by query, and their runs."""
