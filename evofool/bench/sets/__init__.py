"""Sets of fooling images that exist, one's own or anybody's, and their scores."""
