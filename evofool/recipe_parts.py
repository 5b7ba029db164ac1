"""The tables of a recipe but for its encoding: strict, frozen models, whose docstrings document their keys."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evofool.descriptors import DESCRIPTORS
from evofool.text import shortened

Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
_NOT_IN_NAMES = r"/\\\p{Cc}\p{Cf}\p{Zl}\p{Zp}"
FolderName = Annotated[str, Field(pattern=rf"^[^{_NOT_IN_NAMES}]*[^{_NOT_IN_NAMES}. ][^{_NOT_IN_NAMES}]*$")]
"""Of one folder, in printable characters, and not only dots and spaces."""

NumberFormat = Literal["auto", "float32", "float32-folded", "bfloat16", "float16", "bfloat16-compiled", "float16-compiled"]
"""What a network computes in while a search ranks."""

UNLIKE = ("shape", "others")
"""The measures that search.unlike may name (image_metrics.unlike)."""


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class SurrogatePart(Part):
    """Children that are made by climbing the gradients of other networks, the surrogates (docs/surrogates.md). The target is
    queried for them once, as for any child. For encodings of pixels and canvases.
    """

    targets: tuple[str, ...] = Field(min_length=1, max_length=16)
    """The surrogates, in the grammar of targets: networks with gradients. Those of the target's own family help; unrelated
    ones give nothing (`evofool targets kinship`).
    """
    steps: int = Field(14, ge=1, le=10_000)
    """The number of steps of a climb: so many forward and backward passes of each surrogate."""
    band: int = Field(28, ge=1, le=4096)
    """A step is made of so many cosines along each side of the pixels, the lowest ones."""
    rate: float = Field(2.5, gt=0, le=255)
    """The root mean square of a step, in grey levels."""
    share: Share = 0.5
    """The share of children that climb, each from its mother, for the class that she was drawn for."""
    after: int = Field(0, ge=0, lt=1 << 53)
    """No child climbs before so many evaluations."""


class SearchPart(Part):
    """How MAP-Elites searches (evofool.search.evolve)."""

    seed: int = Field(0, ge=0, lt=1 << 62)
    """The key of every random draw."""
    batch: int = Field(16, ge=1, le=1 << 20)
    """The number of images that are made from one draw of parents. Small batches suit small targets."""
    rank: Literal["log_odds", "margin"] = "log_odds"
    """What elites are compared by."""
    competition: Literal["all", "argmax", "per-class"] = "all"
    """`all`: every image competes in every class. `argmax`: only in the class with the highest score. `per-class`: only
    in the class that it was made for, so that classes share nothing (a control).
    """
    classes: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(None, min_length=1)
    """The numbers of the classes that are searched for, such as `[0, 3, 8]`; all if not given. With `per-class` only
    these take turns.
    """
    selection: Literal["uniform", "lagging"] = "uniform"
    """How parents are drawn from the cells: `uniform`, or `lagging`: the worst of `tournament` cells, so that weak cells get
    more children. With `per-class` it has no effect, since every child is made for a given class.
    """
    tournament: int = Field(2, ge=2, le=256)
    """The number of cells of which `lagging` takes the worst. Of ten the worst gets 19% of children with 2, 47% with 6."""
    keep: int = Field(1, ge=1, le=256)
    """The number of genomes that each class (and niche) keeps: the best one, its elite, and runners-up. With 1, mother and
    father are the elites of any two. With more, both are of the same class and niche: the mother is the elite in 80% of the
    cases, else any of its genomes, and the father is another of them. Elites are exported and verified; `evofool show
    --list` shows the runners-up, and `evofool export --runners-up` writes them, too.
    """
    lag: int = Field(0, ge=0, le=1 << 16)
    """Batch k draws its parents from the archive after batch k - 1 - lag, so lag + 1 batches are in progress and the
    first lag + 1 are random. A lag keeps workers and streams busy, and costs evaluations. If it is not given, a new
    `evofool run` with workers chooses the least lag that keeps all of them busy. If a run is continued with another lag,
    its next batches are drawn with that.
    """
    random: int = Field(0, ge=0, lt=1 << 53)
    """The first so many images are random, in whole batches; 0: only those of the first lag + 1 batches."""
    mode: Literal["reproducible", "free"] = "reproducible"
    """`reproducible`: batches are committed in order, and any number of workers gives the same results. `free`: with
    workers, batches are committed as they finish, whatever the lag; the order is stored, and `evofool replay` repeats
    it.
    """
    unlike: str | None = None
    """`shape>95`: an image wins a place only of classes from which it is far enough in shape: its
    `nearest_own_shape_percentile` for the class, as `evofool measure` stores it, is above 95 (any number from 0 to below
    100). `others>90` is stricter: by the same distance it is further from the class than 90% of real digits of other
    classes. For grey targets of the ten digits; the real ones come with `evofool[train]`. [Search under a limit on
    likeness](unlike.md) says what it does not see.
    """
    surrogate: SurrogatePart | None = None
    """Children that climb the gradients of surrogates."""
    parents: str | None = Field(None, min_length=1)
    """The folder of a run (`--parents RUN`) whose elites are the first genomes, in order of birth, instead of random
    ones. They are scored anew, so its target may be another one; the encoding and the size of images have to be the
    same. With `per-class` each competes in the class whose elite it was, if the labels are the same. The genomes are
    copied into the run's file, so the folder is not needed afterwards.
    """

    @property
    def unlike_limit(self) -> tuple[str, float] | None:
        """The measure and the percentile of `unlike`; None without it."""
        if self.unlike is None:
            return None
        measure, _, percentile = self.unlike.partition(">")
        return measure, float(percentile)

    @property
    def cells_per_draw(self) -> int:
        """The size of the tournament that draws a parent's cell; 1: uniform."""
        return self.tournament if self.selection == "lagging" else 1

    @field_validator("unlike")
    @classmethod
    def _known_measure(cls, unlike: str | None) -> str | None:
        """In one form, so that equal recipes compare equal."""
        if unlike is None:
            return None
        found = re.fullmatch(r"\s*(\w+)\s*>\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*", unlike)
        if not found or float(found[2]) >= 100:
            raise ValueError('has to be a measure and a percentile from 0 to below 100, as in "shape>95"')
        if found[1] not in UNLIKE:
            raise ValueError(f'there is no measure "{shortened(found[1])}"; there are: {", ".join(UNLIKE)}')
        return f"{found[1]}>{float(found[2]):.6f}".rstrip("0").rstrip(".")

    @field_validator("classes")
    @classmethod
    def _ascending(cls, classes: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """Ascending, so that equal recipes compare equal."""
        if classes is not None and len(set(classes)) < len(classes):
            raise ValueError("names a class twice")
        return classes and tuple(sorted(classes))

    @field_validator("parents")
    @classmethod
    def _absolute(cls, parents: str | None) -> str | None:
        """An absolute path, so that it is valid in any folder."""
        return parents and str(Path(parents).expanduser().absolute())


class NichesPart(Part):
    """Intervals of an image descriptor; every class keeps one elite for each interval."""

    descriptor: str
    """A registered descriptor: `png_bytes_per_pixel`, `mirror_symmetry` or one of your own."""
    edges: tuple[float, ...] = Field(min_length=1)
    """The edges between intervals, in ascending order; n edges make n + 1 intervals."""

    @model_validator(mode="after")
    def _known(self) -> "NichesPart":
        if self.descriptor not in DESCRIPTORS:
            raise ValueError(f'descriptor: no "{self.descriptor}" is registered; there are {", ".join(DESCRIPTORS)}')
        if any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges {list(self.edges)} have to ascend")
        return self


class StopPart(Part):
    """A run ends at the first of these that is reached; at least one is required."""

    evaluations: int | None = Field(None, ge=1)
    """The number of evaluated images."""
    answers: int | None = Field(None, ge=1)
    """The number of images that the target answered, validation included, over all sessions. What a black box had
    answered before costs nothing.
    """
    seconds: float | None = Field(None, gt=0)
    """Seconds of search, over all sessions."""
    confidence: float | None = Field(None, gt=0, lt=1)
    """Every class has reached this confidence."""
    no_progress: int | None = Field(None, ge=1)
    """No elite was replaced for this number of batches."""

    @model_validator(mode="after")
    def _some(self) -> "StopPart":
        if all(value is None for value in self.__dict__.values()):
            raise ValueError(
                "give at least one of evaluations, answers, seconds, confidence, no_progress, or the run never ends"
            )
        return self


class RayPart(Part):
    """Where workers run and what each reserves (evofool.cluster). Does not change results."""

    address: str = "local"
    """`local` starts a Ray for this run on this machine; `auto` or `HOST:PORT` joins the cluster that this machine is a
    node of.
    """
    cpus: float = Field(1.0, ge=0)
    """The CPU cores that each worker reserves."""
    gpus: float = Field(0.0, ge=0)
    """The GPUs that each worker reserves; workers with a fraction share a GPU."""
    memory: float = Field(0.0, ge=0)
    """The GiB of memory that each worker reserves. Ray places workers by it, but does not enforce it."""
    resources: dict[str, float] = {}
    """Custom resources of Ray that each worker reserves: `--set 'compute.ray.resources={a100 = 1}'`."""
    placement: Literal["DEFAULT", "SPREAD"] = "DEFAULT"
    """Ray's scheduling strategy: `DEFAULT` packs workers onto few nodes, `SPREAD` spreads them."""
    environment: dict[str, Any] = {}
    """Ray's runtime environment for workers: `--set 'compute.ray.environment={working_dir = "."}'`."""
    in_flight: int = Field(0, ge=0, le=64)
    """The calls that each worker has at once; 0: one if its last call took 0.1 s or longer, else two, so that it does not
    wait for the next one. More calls mean older parents in free mode.
    """
    timeout: float = Field(300.0, gt=0)
    """Seconds after which a call counts as hanging; four times as many for a worker's start and its first call. For whole
    runs as jobs ([many machines](cluster.md)): the seconds that a job's process may give no sign of life.
    """
    retries: int = Field(2, ge=1, le=100)
    """The number of workers that may die during a call before it is split; an image that still kills workers when it is
    alone is quarantined. For whole runs as jobs: the number of workers that a job may lose before it fails.
    """
    quarantine: int = Field(16, ge=0)
    """The number of images that may be quarantined in one session, with workers or without, before the search ends."""

    @field_validator("gpus")
    @classmethod
    def _whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("has to be a fraction of one, or a whole number")
        return gpus

    @field_validator("resources")
    @classmethod
    def _custom(cls, resources: dict[str, float]) -> dict[str, float]:
        if any(name in ("CPU", "GPU", "memory") or amount <= 0 for name, amount in resources.items()):
            raise ValueError("names a cluster's own resources with amounts above 0; the others are cpus, gpus and memory")
        return resources

    @field_validator("address")
    @classmethod
    def _reachable(cls, address: str) -> str:
        if not re.fullmatch(r"local|auto|[^/\s]+:[0-9]{1,5}", address):
            raise ValueError("has to be local, auto or HOST:PORT; a search joins a cluster as one of its nodes")
        return address


class ComputePart(Part):
    """How images are classified. `chunk`, `threads` and `format` affect results; the other keys do not."""

    chunk: int = Field(0, ge=0, le=1 << 20)
    """Images in a forward pass; 0: the whole batch. Short chunks are padded. Affects the last bits of results."""
    threads: int = Field(1, ge=1, le=1024)
    """Torch threads of a forward pass. Affects the last bits of results."""
    format: NumberFormat = "auto"
    """The number format that the search ranks by. `float32` is the network as given; `auto` measures the formats at the
    start and keeps its choice. Affects results; elites are always scored again in float32.
    """
    streams: int = Field(0, ge=0, le=1024)
    """Chunks that are classified at once by threads of this process; 0: chosen for this machine. Does not change results."""
    workers: int = Field(0, ge=0, le=100_000)
    """Processes of Ray that classify instead, one chunk at a time each, on this machine or a cluster; 0: none. Does not
    change results, except in the free mode.
    """
    recheck: int = Field(50, ge=0)
    """For black boxes: the number of requests after which known images are asked again, to notice that the target has
    changed; 0: never. These requests and answers are counted. Does not change results.
    """
    recheck_tolerance: float | None = Field(None, gt=0)
    """The largest difference of log-odds from their first answers that is allowed for these images; if not given, it
    follows from what is measured at the start. Does not change results.
    """
    ray: RayPart = RayPart()
    """Where these workers run."""


class SavePart(Part):
    """When the run is saved."""

    seconds: float = Field(1.0, ge=0)
    """The least time between checkpoints. After an expensive checkpoint the run waits 80 times what it took."""
