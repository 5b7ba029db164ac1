"""The facts about a run that its file keeps as JSON, in the table meta. They are written and read through RunMeta."""

from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    StrictStr,
    ValidationInfo,
    field_validator,
)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetRecord(_Record):
    """What is kept of the target (Target.description)."""

    name: StrictStr
    labels: list[StrictStr]
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]  # (C, H, W)
    fingerprint: StrictStr  # SHA-256 over labels, shape, preprocessing and weights
    details: dict[str, Any]


class Seeds(_Record):
    """The elites of another run that a search begins with. They have the births 0 to number - 1."""

    run: StrictStr  # the id of the other run
    number: int = Field(gt=0, strict=True)
    classes: tuple[NonNegativeInt, ...] = ()  # by birth its class, with competition "per-class"; else none


class WorkersRecord(_Record):
    """The workers at a checkpoint."""

    time: float  # Unix time
    workers: list[dict[str, Any]]  # Evaluator.workers


class LagRecord(_Record):
    """The search.lag of the batches from one on; see run/lags.py."""

    batch: NonNegativeInt  # the first one whose parents are drawn with it
    committed: NonNegativeInt  # batches, when the search went on with it
    lag: NonNegativeInt


class AttackState(_Record):
    """How far an attack, not a search, has come: what it was asked to do, and what is done of it."""

    plan: dict[str, Any]  # plain JSON; has at least "method"
    done: NonNegativeInt = 0  # classes, elites or units
    forwards: NonNegativeInt = 0  # passes
    backwards: NonNegativeInt = 0
    notes: list[str] = []
    queries_before: int = 0  # of the target's query counter, what is not this run's

    def advanced(self, done: int, forwards: int, backwards: int, notes: list[str]) -> "AttackState":
        """The state after so many more classes, elites or units, and passes. notes are all of them."""
        return self.model_copy(
            update={
                "done": self.done + done,
                "forwards": self.forwards + forwards,
                "backwards": self.backwards + backwards,
                "notes": notes,
            }
        )


class PositionRecord(_Record):
    """Whether logits depend on an image's row in a chunk (evofool.targets.position.Position)."""

    chunk: PositiveInt
    dependent: bool
    tolerance: float | None


class AgreementRecord(_Record):
    """When a black box last gave known images the same answers as before (evofool.targets.drift)."""

    committed: NonNegativeInt  # batches by then
    requests: NonNegativeInt


class DriftRecord(_Record):
    """Batches that a black box answered between the last check that agreed and one that did not: begin to end - 1.

    Their elites are marked, because it is not known which of them were answered by the target that the run began with.
    """

    begin: NonNegativeInt
    end: NonNegativeInt
    requests: NonNegativeInt  # at the check that did not agree
    reason: StrictStr


class MergedSource(_Record):
    """One search that went into a merged run. machine, device and backend: those that scored its elites."""

    id: StrictStr
    recipe: dict[str, Any]
    machine: dict[str, Any]
    position: PositionRecord
    device: str
    backend: str | None
    evaluations: NonNegativeInt
    seconds: NonNegativeFloat
    answers: NonNegativeInt
    drifts: list[DriftRecord] = []


class RunMeta(_Record):
    """Everything in the table meta but the file's format and version."""

    id: StrictStr  # random: tells runs apart where they are merged
    recipe: dict[str, Any]
    target: TargetRecord
    machine: dict[str, Any]  # evofool.machine; {"several kinds": [...]} where machines differed
    position: PositionRecord
    speed: dict[str, Any] | None = None  # the measurements that the number format was chosen by
    committed: int = Field(0, ge=0, strict=True)  # batches
    shown: int = Field(0, ge=0, strict=True)  # batches that the table elites is up to date with
    shown_changes: int = Field(0, ge=0, strict=True)  # the same in rows of cell_history
    last_progress: int = Field(0, ge=0, strict=True)  # the last commit that changed a cell, from 0
    seconds: float = Field(0.0, ge=0, strict=True)  # of search, over all sittings
    finished: str | None = None  # why the run ended by its own rules
    answers: NonNegativeInt = 0  # images that the target answered, over all sittings
    repeated: NonNegativeInt = 0  # images that were evaluated again, to compare workers or after a rewind; not in answers
    warnings: list[str] = []
    workers: WorkersRecord | None = None
    seeds: Seeds | None = None
    lags: list[LagRecord] = []  # of a run that was continued with another search.lag, the first one included; else empty
    references: dict[str, dict[str, Any]] = {}  # by key, what elites' images were compared with
    merged: list[MergedSource] | None = None  # of merged runs, by id
    attack: AttackState | None = None  # of runs that no search made
    agreed: AgreementRecord | None = None  # of black boxes
    drifts: list[DriftRecord] = []  # of black boxes, oldest first

    @field_validator("seeds")
    @classmethod
    def _classes_exist(cls, seeds: Seeds | None, info: ValidationInfo) -> Seeds | None:
        if seeds and "target" in info.data:
            if len(seeds.classes) not in (0, seeds.number):
                raise ValueError("classes are not as many as the seeds")
            if any(c >= len(info.data["target"].labels) for c in seeds.classes):
                raise ValueError("the target has no such class")
        return seeds

    @field_validator("lags")
    @classmethod
    def _ascending(cls, lags: list[LagRecord]) -> list[LagRecord]:
        batches = [one.batch for one in lags]
        if lags and (batches != sorted(set(batches)) or batches[0] != 0 or any(one.committed > one.batch for one in lags)):
            raise ValueError("batches do not ascend from 0, or more are committed than drawn")
        return lags

    @property
    def machines(self) -> list[dict[str, Any]]:
        """The kinds of machine that evaluated for this run."""
        return list(self.machine.get("several kinds", [self.machine]))

    @property
    def searched(self) -> bool:
        """Whether one search made this run: no merge, and no attack."""
        return self.merged is None and self.attack is None

    def updated(self, **changes: Any) -> "RunMeta":
        """A copy with changes, which are checked like the rest: ValidationError for a key or a value that cannot be."""
        return RunMeta.model_validate({**dict(self), **changes})
