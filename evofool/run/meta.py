"""The facts about a run that its file keeps as JSON, in the table meta. They are written and read through RunMeta.

A run's file may come from anyone, so every value that a command uses has a type and bounds here.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from evofool.images import shape_fault

MOST = 1 << 53
"""Counts and births lie below this: they are exact as float64 too, and sums of some of them fit into int64."""

Count = Annotated[int, Field(ge=0, lt=MOST, strict=True)]
Positive = Annotated[int, Field(gt=0, lt=MOST, strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _OpenRecord(BaseModel):
    """Has fields beside those that are named: they are only compared and printed."""

    model_config = ConfigDict(extra="allow", frozen=True)


class TargetRecord(_Record):
    """What is kept of the target (Target.description)."""

    name: StrictStr
    labels: list[StrictStr] = Field(min_length=2)
    shape: tuple[StrictInt, StrictInt, StrictInt]  # (C, H, W)
    fingerprint: StrictStr  # SHA-256 over labels, shape, preprocessing and weights
    details: dict[str, Any]

    @field_validator("labels")
    @classmethod
    def _differ(cls, labels: list[str]) -> list[str]:
        if len(set(labels)) < len(labels):
            raise ValueError("two classes have the same label")
        for label in labels:
            if not label.isprintable():
                raise ValueError(f"the label {label!r:.80} has characters that cannot be printed")
        return labels

    @field_validator("shape")
    @classmethod
    def _sensible(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if fault := shape_fault(shape):
            raise ValueError(fault)
        return shape

    @field_validator("details")
    @classmethod
    def _read(cls, details: dict[str, Any]) -> dict[str, Any]:
        _Details.model_validate(details)
        return details


class _Preprocessing(_OpenRecord):
    """What commands read of a stored preprocessing (targets.Preprocessing)."""

    resize: Annotated[int, Field(gt=0, lt=1 << 16, strict=True)] | None = None
    interpolation: StrictStr = "bilinear"


class _Details(_OpenRecord):
    """What commands read of a stored target's details; the rest is only compared and printed."""

    device: StrictStr = "cpu"
    backend: StrictStr | None = None
    outputs: StrictStr = "logits"
    preprocessing: _Preprocessing = _Preprocessing()
    notes: list[StrictStr] = []


class SpeedRecord(_Record):
    """The measurements that the number format was chosen by (targets.speed.FormatChoice)."""

    number_format: StrictStr
    chunk: Positive
    rates: dict[str, NotNegative]  # images/s by format
    differences: dict[str, tuple[NotNegative, NotNegative]]  # from float32: median, 99% quantile
    dropped: dict[str, StrictStr]  # by format, why it cannot be used


class Seeds(_Record):
    """The elites of another run that a search begins with. They have the births 0 to number - 1."""

    run: StrictStr  # the id of the other run
    number: Positive
    classes: tuple[Count, ...] = ()  # by birth its class, with competition "per-class"; else none


class WorkerRecord(_OpenRecord):
    """One worker at a checkpoint (cluster.evaluator.RayEvaluator.workers)."""

    worker: Count
    state: StrictStr
    node: StrictStr
    pid: Count
    device: StrictStr
    images: Count
    images_per_second: NotNegative
    busy: NotNegative  # share of time
    in_flight: Count
    restarts: Count
    torch: StrictStr = ""  # files of earlier versions lack it


class WorkersRecord(_Record):
    """The workers at a checkpoint."""

    time: NotNegative  # Unix time
    workers: list[WorkerRecord]


class LagRecord(_Record):
    """The search.lag of the batches from one on; see run/lags.py."""

    batch: Count  # the first one whose parents are drawn with it
    committed: Count  # batches, when the search went on with it
    lag: Annotated[int, Field(ge=0, le=1 << 16, strict=True)]


class AttackState(_Record):
    """How far an attack, not a search, has come: what it was asked to do, and what is done of it."""

    plan: dict[str, Any]  # plain JSON
    done: Count = 0  # classes, elites or units
    forwards: Count = 0  # passes
    backwards: Count = 0
    notes: list[StrictStr] = []
    queries_before: Annotated[int, Field(strict=True, gt=-MOST, lt=MOST)] = 0  # of the target's counter, not this run's

    @field_validator("plan")
    @classmethod
    def _read(cls, plan: dict[str, Any]) -> dict[str, Any]:
        _Plan.model_validate(plan)
        return plan

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


class SurrogateRecord(_Record):
    """A network whose gradients children climb."""

    name: StrictStr
    fingerprint: StrictStr


class SurrogatesRecord(_Record):
    """The surrogates of a search, and what they did for the batches that are committed. Their passes are no queries."""

    networks: list[SurrogateRecord]
    children: Count = 0  # that have climbed
    forwards: Count = 0  # passes
    backwards: Count = 0
    climbs: dict[StrictStr, list[Annotated[int, Field(ge=-1, lt=1 << 24, strict=True)]]] = {}
    """By the number of a batch in progress, Order.climbs."""


class _Plan(_OpenRecord):
    """What commands read of an attack's plan; the rest is compared with the plan of the command that resumes it."""

    method: StrictStr
    classes: list[Count] = []
    settings: dict[str, Any] = {}
    run: StrictStr = ""


class PositionRecord(_Record):
    """Whether logits depend on an image's row in a chunk (evofool.targets.position.Position)."""

    chunk: Positive
    dependent: StrictBool
    tolerance: NotNegative | None


class AgreementRecord(_Record):
    """When a black box last gave known images the same answers as before (evofool.targets.remote.drift)."""

    committed: Count  # batches by then
    requests: Count


class DriftRecord(_Record):
    """Batches that a black box answered between the last check that agreed and one that did not: begin to end - 1.

    Their elites are marked, because it is not known which of them were answered by the target that the run began with.
    """

    begin: Count
    end: Count
    requests: Count  # at the check that did not agree
    reason: StrictStr


class UnlikeRecord(_Record):
    """The real images that search.unlike compares with, and the images that it kept from places in committed batches."""

    images: StrictStr
    reference: Count  # the number of real images that are compared with
    held_out: Count
    sha256: StrictStr  # of all of them, and their classes
    turned_away: list[Count]  # by class, images that would have won a place


class MergedSource(_Record):
    """One search that went into a merged run. machine, device and backend: those that scored its elites."""

    id: StrictStr
    recipe: dict[str, Any]
    machine: dict[str, Any]
    position: PositionRecord
    device: StrictStr
    backend: StrictStr | None
    evaluations: Count
    seconds: NotNegative
    answers: Count
    drifts: list[DriftRecord] = []
    unlike: UnlikeRecord | None = None


class ReferenceRecord(_OpenRecord):
    """Real images that elites' images were compared with (image_metrics.ImageMetrics.reference_details)."""

    images: StrictStr
    reference: Count  # the number of real images that are compared with
    held_out: Count
    network: StrictStr | None = None
    real: StrictStr | None = None  # the key of the images alone


class RunMeta(_Record):
    """Everything in the table meta but the file's format and version."""

    id: StrictStr  # random: tells runs apart where they are merged
    recipe: dict[str, Any]
    target: TargetRecord
    machine: dict[str, Any]  # evofool.machine; {"several kinds": [...]} where machines differed
    position: PositionRecord
    speed: SpeedRecord | None = None
    committed: Count = 0  # batches
    shown: Count = 0  # batches that the table elites is up to date with
    shown_changes: Count = 0  # the same in rows of cell_history
    last_progress: Count = 0  # the last commit that changed a cell, from 0
    seconds: NotNegative = 0.0  # of search, over all sessions
    finished: StrictStr | None = None  # why the run ended by its own rules
    answers: Count = 0  # images that the target answered, over all sessions
    repeated: Count = 0  # images that were evaluated again, to compare workers or after a rewind; not in answers
    warnings: list[StrictStr] = []
    workers: WorkersRecord | None = None
    seeds: Seeds | None = None
    lags: list[LagRecord] = []  # of a run that was continued with another search.lag, the first one included; else empty
    references: dict[str, dict[str, Any]] = {}  # by key, what elites' images were compared with
    merged: Annotated[list[MergedSource], Field(min_length=1)] | None = None  # of merged runs, by id
    attack: AttackState | None = None  # of runs that no search made
    agreed: AgreementRecord | None = None  # of black boxes
    drifts: list[DriftRecord] = []  # of black boxes, oldest first
    surrogates: SurrogatesRecord | None = None  # of searches with search.surrogate
    unlike: UnlikeRecord | None = None  # of searches with search.unlike, and merged ones

    @field_validator("recipe")
    @classmethod
    def _cells_are_known(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        """The niches decide the cells, and keep their lists; evofool.recipe reads the whole of the recipe."""
        niches, search = recipe.get("niches"), recipe.get("search")
        keep = search.get("keep", 1) if isinstance(search, Mapping) else 1
        if not isinstance(keep, int) or isinstance(keep, bool) or not 1 <= keep <= 256:
            raise ValueError("search.keep is no number of genomes")
        if niches is not None and not (isinstance(niches, Mapping) and isinstance(niches.get("edges"), (list, tuple))):
            raise ValueError("niches have no list of edges")
        return recipe

    @field_validator("machine")
    @classmethod
    def _kinds_are_tables(cls, machine: dict[str, Any]) -> dict[str, Any]:
        kinds = machine.get("several kinds", [machine])
        if not isinstance(kinds, (list, tuple)) or not all(isinstance(kind, dict) for kind in kinds):
            raise ValueError('"several kinds" is no list of kinds')
        return machine

    @field_validator("references")
    @classmethod
    def _describe_images(cls, references: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for details in references.values():
            ReferenceRecord.model_validate(details)
        return references

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

    @field_validator("attack")
    @classmethod
    def _attacked_classes_exist(cls, attack: AttackState | None, info: ValidationInfo) -> AttackState | None:
        classes = attack.plan.get("classes", ()) if attack and "target" in info.data else ()
        if any(c >= len(info.data["target"].labels) for c in classes):
            raise ValueError("plan.classes: the target has no such class")
        return attack

    @field_validator("surrogates")
    @classmethod
    def _climbed_classes_exist(cls, found: SurrogatesRecord | None, info: ValidationInfo) -> SurrogatesRecord | None:
        classes = [c for climbs in found.climbs.values() for c in climbs] if found and "target" in info.data else []
        if any(c >= len(info.data["target"].labels) for c in classes):
            raise ValueError("climbs: the target has no such class")
        return found

    @field_validator("unlike", "merged")
    @classmethod
    def _of_all_classes(cls, value: Any, info: ValidationInfo) -> Any:
        records = [source.unlike for source in value] if isinstance(value, list) else [value]
        classes = len(info.data["target"].labels) if "target" in info.data else None
        if classes and any(record and len(record.turned_away) != classes for record in records):
            raise ValueError("turned_away does not have a number for each class")
        return value

    @property
    def niches(self) -> int:
        """Niches per class; cell = class * niches + niche."""
        niches = self.recipe.get("niches")
        return len(niches["edges"]) + 1 if niches else 1

    @property
    def keep(self) -> int:
        """The most genomes in a cell's list; only a search has more than one."""
        search = self.recipe.get("search")
        return search.get("keep", 1) if self.searched and isinstance(search, Mapping) else 1

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


def fault_of(error: ValidationError) -> str:
    """The first fault, as in "target.shape.1: Input should be a valid integer (it is 28.0)"."""
    item, path = error.errors()[0], list[str]()
    while True:
        path += map(str, item["loc"])
        inner = item.get("ctx", {}).get("error")
        if not isinstance(inner, ValidationError):
            break
        item = inner.errors()[0]
    if item["type"] == "missing":
        return f"{'.'.join(path)} is missing"
    return f"{'.'.join(path)}: {item['msg'].removeprefix('Value error, ')} (it is {item['input']!r:.80})"
