"""Numbers computed from an image alone or beside real ones: distances to real images, total variation, file size."""
