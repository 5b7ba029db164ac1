"""The names of the image metrics, as run files, tables and JSON have them."""

PIXELS = "nearest_real_pixels_percentile"
HOG = "nearest_real_hog_percentile"
FEATURES = "nearest_real_features_percentile"
OWN_SHAPE = "nearest_own_shape_percentile"
HAS_OWN_SHAPE = "has_own_shape"
"""1 where an image has the shape of its class (own_shape.OwnShape's flag), else 0."""
TOTAL_VARIATION = "total_variation"
BYTES_PER_PIXEL = "bytes_per_pixel"

PERCENTILES = (PIXELS, HOG, FEATURES, OWN_SHAPE)
"""Those that compare with real images, on 0..100."""
