"""Pages and pictures: pure functions from plain data to an image, PNG bytes, SVG or HTML; the caller saves them."""
