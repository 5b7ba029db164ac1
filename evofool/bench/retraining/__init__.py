"""Networks trained against fooling images, and the loop of training and fooling."""
