"""Pictures for people: pure functions from plain data to an image, PNG bytes or SVG text; the caller saves them."""
