"""Sets of fooling images: several classifiers, encodings, attacks and seeds, with every classifier's answers."""
