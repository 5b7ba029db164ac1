"""Why did the classifier see this class here: saliency, segmentation, inversion, dream, occlusion.

explain() writes the page of one image; read_picture() reads a file as an image of a target's shape. Both are loaded when
they are first used.
"""

from typing import TYPE_CHECKING

from evofool.lazy import lazy

if TYPE_CHECKING:
    from evofool.explain.input_picture import read_picture as read_picture
    from evofool.explain.page import Explanation as Explanation
    from evofool.explain.page import explain as explain
else:
    __getattr__ = lazy(
        __name__,
        {
            "Explanation": "evofool.explain.page",
            "explain": "evofool.explain.page",
            "read_picture": "evofool.explain.input_picture",
        },
    )

__all__ = ["Explanation", "explain", "read_picture"]
