"""`evofool morph RUN`."""

from pathlib import Path

from evofool.printer import print_json, print_lines


def morph_run(folder: Path, first: str, last: str, *, steps: int, out: Path | None, trust: bool, as_json: bool) -> None:
    """Write the page and the animation of the way between two elites, and print where the predicted class changes."""
    from evofool.errors import StoreError
    from evofool.explain.morph import morph as morphed
    from evofool.explain.morph_page import ANIMATION, morph_page, shares_of
    from evofool.machine import torch_threads
    from evofool.run.stored import StoredRun
    from genomes import Latent

    with StoredRun(folder) as stored:
        if not isinstance(stored.encoding, Latent):
            raise StoreError(
                f"{stored.folder} has {stored.recipe.encoding.kind} genomes; only the codes of a decoder (encoding.kind "
                "latent) have images between two of them"
            )
        classes = stored.class_id(first), stored.class_id(last)
        elites = [max(stored.listed(c), key=lambda elite: elite.row.log_odds) for c in classes]
        begin, end = (stored.genome(elite) for elite in elites)
        target, threads = stored.own_target(trust=trust), stored.recipe.compute.threads
        with torch_threads(threads):
            found = morphed(stored.encoding, target, begin, end, frames=steps, chunk=stored.recipe.chunk)
        home = out or stored.folder / f"morph-{classes[0]}-{classes[1]}"
        output = morph_page(found, stored.labels, (classes[0], classes[1]), home, stored.folder.name)
        labels = stored.labels
    animation = home / ANIMATION
    if as_json:
        print_json(
            {
                "classes": list(classes),
                "boundaries": [
                    {"share": boundary.share, "from": boundary.classes[0], "to": boundary.classes[1]}
                    for boundary in found.boundaries
                ],
                "queries": found.queries,
                "page": str(output.page),
                "animation": str(animation),
                "pictures": [str(path) for path in output.pictures],
            }
        )
        return
    for share, boundary in zip(shares_of(found), found.boundaries, strict=True):
        print_lines(f"{share:.1%} of the way: {labels[boundary.classes[0]]} becomes {labels[boundary.classes[1]]}")
    print_lines(f"Queries: {found.queries}", f"Animation: {animation}", f"Page: {output.page}")
