"""`evofool morph chairs`."""

from pathlib import Path

from evofool.printer import print_json, print_lines

CHAIRS = "chairs"


def morph_chairs(
    first: str, last: str, *, azimuth: int, elevation: int, model: Path | None, out: Path | None, as_json: bool
) -> None:
    """Write the page and the animation of two chairs, given by number, and print what was written."""
    from evofool.explain.chairs.model_file import load_generator, shipped_generator
    from evofool.explain.chairs.morph import chair_number, morph_page
    from evofool.machine import torch_threads

    generator = shipped_generator() if model is None else load_generator(model)
    chairs = chair_number(generator, first), chair_number(generator, last)
    folder = out or Path(f"{CHAIRS}-{chairs[0]}-{chairs[1]}")
    # One thread: results do not depend on the machine's cores.
    with torch_threads(1):
        output = morph_page(generator, *chairs, folder, azimuth=azimuth, elevation=elevation)
    if as_json:
        print_json(
            {
                "chairs": list(chairs),
                "error": output.error,
                "fade": output.fade,
                "page": str(output.page),
                "animation": str(output.animation),
                "pictures": [str(path) for path in output.pictures],
            }
        )
        return
    print_lines(
        f"Mean square from rendered chairs on the way: {output.error:.4f}, of a cross-fade {output.fade:.4f}",
        f"Animation: {output.animation}",
        f"Page: {output.page}",
    )
