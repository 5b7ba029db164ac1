"""Everything that can go wrong for a user's reasons. Each error also is the built-in that fits it.

EvofoolError                 caught by the command line, which prints its sentence and exits with 2
|-- RecipeError(ValueError)  a recipe or a --set that cannot be
|-- TargetError(ValueError)  a classifier that cannot be loaded or answers the wrong thing
|   `-- BudgetError          a black box whose cap on requests is reached
|-- ScoreError(ArithmeticError)  scores that are not finite
|-- ImageError(ValueError)   a picture that is none, or has the wrong size
|-- StoreError(OSError)      a run's folder or file: missing, not ours, damaged, full disk, in use
`-- VerifyError(ValueError)  a run whose stored elites are not what they say (exit status 1)

Faults of genomes are genomes.GenomeError; that package does not know this one.
"""


class EvofoolError(Exception):
    """Any of the errors below."""


class RecipeError(EvofoolError, ValueError):
    """Names the file, the key and the nearest valid key or the allowed values."""


class TargetError(EvofoolError, ValueError):
    """Names the target and what to check."""


class BudgetError(TargetError):
    """Names the cap and how to go on; nothing that was paid for is lost."""


class ScoreError(EvofoolError, ArithmeticError):
    """Names the batch whose scores are not finite; nothing of that batch enters the archive."""


class ImageError(EvofoolError, ValueError):
    """Names the file or the sizes."""


class StoreError(EvofoolError, OSError):
    """Names the file and what is still safe."""


class VerifyError(EvofoolError, ValueError):
    """Names the class whose image or score is not as stored."""


class Interrupted(Exception):
    """Somebody asked the work to end. No error: what is done is saved, and whoever began it says so."""
