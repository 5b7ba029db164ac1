"""The command `evofool verify`."""

from evofool.cli.console import print_drifts
from evofool.cli.options import RunFolder, Trust
from evofool.printer import print_lines


def verify(folder: RunFolder, trust: Trust = False) -> None:
    """Check a run's file: hashes, images redrawn from their genomes, and every image scored again.

    Checks the integrity of the file, a SHA-256 over class, birth, score and PNG of each elite, and that every genome still
    draws its image. Then every PNG is scored again: scores are bit-identical on the kind of machine that made the run
    (or within a measured tolerance, where logits depend on an image's place in a chunk), and within 1e-3 log-odds
    elsewhere. Exits with 1 and names the class if a check fails.
    """
    from evofool.errors import VerifyError
    from evofool.run.stored import StoredRun
    from evofool.run.verify import verify as check

    with StoredRun(folder) as stored:
        verdict = check(stored, trust=trust)
        print_drifts(stored)
    if verdict.faults:
        raise VerifyError(f"{folder} fails:", *(f"  {fault}" for fault in verdict.faults))
    print_lines(
        f"{folder} passes: {verdict.elites} elites, hashes correct, every image scored again, log-odds {verdict.comparison} "
        f"(largest difference {verdict.largest_difference:.2g})"
    )
