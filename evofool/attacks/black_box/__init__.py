"""Black-box attacks: they query the target for logits of 8-bit images and use nothing else of it."""
