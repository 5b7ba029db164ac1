"""Why did the classifier see this class here: saliency, segmentation, inversion, dream, occlusion."""
