"""What both programs of the gate have to say."""

from pathlib import Path

from evofool.targets import Target


def old_answers(target: Target, home: Path) -> list[str]:
    """A note where a target was measured in the folder before, and could have changed without a trace: behind a server."""
    if not target.lasting or not home.exists():
        return []
    return [f"what {target.name} answered an earlier call counts, in {home}: if it has changed since, take another --out"]
