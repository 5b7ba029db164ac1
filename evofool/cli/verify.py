"""The command `evofool verify`."""

from evofool.cli.options import RunFolder, Trust


def verify(folder: RunFolder, trust: Trust = False) -> None:
    """Check that every stored image is what its record says, and scores what it says.

    The file's integrity; a SHA-256 over class, birth, score and PNG of each elite; every genome drawn again; then every PNG
    is read back and scored again: equal bits on the kind of machine that made it, elsewhere within 1e-3 of log-odds.
    Exits with 1 and names the class if anything is off.
    """
    from evofool.errors import VerifyError
    from evofool.run.stored import StoredRun
    from evofool.run.verify import TOLERANCE
    from evofool.run.verify import verify as check

    with StoredRun(folder) as stored:
        verdict = check(stored, trust=trust)
    if verdict.faults:
        raise VerifyError(f"{folder} does not hold:\n  " + "\n  ".join(verdict.faults))
    how = "equal to the bit" if verdict.exact else f"within {TOLERANCE:g} (another kind of machine)"
    print(
        f"{folder} holds: {verdict.elites} elites, hashes right, every PNG scored again, log-odds {how} "
        f"(largest difference {verdict.largest_difference:.2g})"
    )
