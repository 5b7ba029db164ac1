"""The errors that a user can cause. Each of them is also a built-in error.

EvofoolError                 caught by the command line, which prints its message and exits with 2
|-- RecipeError(ValueError)  an invalid recipe or --set
|-- TargetError(ValueError)  a classifier that cannot be loaded, or whose output is invalid
|   |-- BudgetError          a black box whose cap on requests is reached
|   |-- DriftError           a black box that answers known images differently than before
|   `-- UnansweredError      a callable that hangs or ends its helper process
|-- ClusterError(ConnectionError)  a Ray cluster that is lost or does not answer
|-- ScoreError(ArithmeticError)  scores that are not finite
|-- ImageError(ValueError)   an unreadable picture, or one of the wrong size
|-- StoreError(OSError)      a run's folder or file: missing, of another program, damaged, full disk, in use
`-- VerifyError(ValueError)  a run whose stored elites do not match their records (exit status 1)

Invalid genomes raise genomes.GenomeError; that package does not import this one.
"""

from evofool.text import visible


class EvofoolError(Exception):
    """Any of the errors below. Each argument is one line of the message, and usually there is one.

    str() escapes what is not printable (evofool.text.visible), because messages quote files, servers and other libraries.
    """

    def __init__(self, *lines: object) -> None:
        Exception.__init__(self, *lines)  # not OSError's, which takes a second argument for the text of an error number

    def __str__(self) -> str:
        return "\n".join(map(visible, self.args))


class RecipeError(EvofoolError, ValueError):
    """Names the file, the key and the nearest valid key or the allowed values."""


class TargetError(EvofoolError, ValueError):
    """Names the target and what to check."""


class BudgetError(TargetError):
    """Names the cap; nothing that was paid for is lost. raised: the target's spec with twice the cap."""

    def __init__(self, text: str, raised: str = "") -> None:
        super().__init__(text)
        self.raised = raised


class DriftError(TargetError):
    """Names an image and a class whose answer changed.

    agreed, now: the numbers of requests when the target last agreed with its first answers, and now. largest: the largest
    difference of log-odds.
    """

    def __init__(self, text: str, agreed: int = 0, now: int = 0, largest: float = 0.0) -> None:
        super().__init__(text)
        self.agreed, self.now, self.largest = agreed, now, largest


class UnansweredError(TargetError):
    """Names the image that a callable hung or ended its process on. row: its row in the batch, None if none does alone."""

    def __init__(self, text: str, row: int | None = None) -> None:
        super().__init__(text)
        self.row = row


class ClusterError(EvofoolError, ConnectionError):
    """Names the cluster and how it failed; what was saved before is safe."""


class ScoreError(EvofoolError, ArithmeticError):
    """Names the batch whose scores are not finite; nothing of that batch enters the archive."""


class ImageError(EvofoolError, ValueError):
    """Names the file or the sizes."""


class StoreError(EvofoolError, OSError):
    """Names the file and what is still safe."""


class VerifyError(EvofoolError, ValueError):
    """Names the class whose image or score is not as stored."""


class Interrupted(Exception):
    """The user stopped the work. Not an error: what is done is saved."""
