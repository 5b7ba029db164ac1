"""What the board reads of a result, and with which other results it compares."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evofool.bench.comparable import headline_conditions
from evofool.errors import RecipeError
from evofool.text import shortened

Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(max_length=10_000)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class ShareRecord(_Record):
    """A share of classes with its interval; limits are None with one seed."""

    value: Share
    low: Share | None = None
    high: Share | None = None


class MeanQueriesRecord(_Record):
    """The geometric mean over classes of the queries a class until it is fooled, with its interval."""

    value: float = Field(gt=0)
    low: float | None = None
    high: float | None = None


class HeadlineRecord(ShareRecord):
    """scores.headline: the share of classes fooled by at least one attack of the suite."""

    queries_per_class: int = Field(ge=1)
    attack_queries_per_class: float = Field(gt=0)
    classes: int = Field(ge=1)
    arms: tuple[Name, ...] = Field(min_length=1)
    left_out: dict[Name, Name] = {}
    score: Name
    reached: ShareRecord | None = None
    queries: MeanQueriesRecord | None = None
    by_score: dict[Name, ShareRecord]
    seeds: tuple[int, ...] = Field(min_length=1)


class QueriesRecord(_Record):
    """A Q50 as bench.interval.Interval writes it."""

    value: float | None = Field(None, gt=0)
    bound: Name = "="
    low: float | None = None
    high: float | None = None


class ArmRecord(_Record):
    """An arm; without seeds it was not measured."""

    kind: Name
    seeds: tuple[int, ...]
    q50: QueriesRecord | None = None
    gradients: Name = ""


class KeptRecord(_Record):
    """The control of a pair of classifier and detector."""

    kept: Share
    met: bool = True


class PairRecord(ShareRecord):
    """The share of classes fooled through classifier and detector, and what real images both keep."""

    real: KeptRecord


class ThroughRecord(_Record):
    """Both at one level, which keeps 95% of real images."""

    joint: PairRecord


class DetectorRecord(_Record):
    """A row of scores.detectors."""

    detector: Name
    arm: Name
    kind: Name
    through: ThroughRecord | None = None


class TransferRecord(_Record):
    """scores.transfer: which share of other targets' elites this one accepts."""

    arm: Name
    of: dict[Name, Share | None]
    median: Share | None

    @property
    def networks(self) -> int:
        """How many others had elites."""
        return sum(share is not None for share in self.of.values())


class TargetRecord(_Record):
    name: Name
    fingerprint: Name
    classes: int
    scored_classes: int
    shape: tuple[int, int, int]
    labels: tuple[Name, ...] = Field(min_length=1)
    spec: Name = ""
    group: Name = ""
    defence: Name = ""
    average: int = Field(1, ge=1)
    views: int = Field(0, ge=0)
    through: str = Field("", max_length=10_000)


class ProtocolRecord(_Record):
    rank: Name
    format: Name
    levels: dict[Name, float]
    confidence: float
    settings: dict[Name, tuple[Name, ...]]
    evofool: Name


class ImagesRecord(_Record):
    source: Name
    sha256: Name
    number: int
    top1: Share
    content_sha256: Name = ""
    suspected_training: bool = False
    classes_without_images: tuple[Name, ...] = ()
    classes_left_out: tuple[Name, ...] = ()


class ScoresRecord(_Record):
    arms: dict[Name, ArmRecord]
    headline: HeadlineRecord | None = None
    detectors: tuple[DetectorRecord, ...] = ()
    transfer: TransferRecord | None = None

    @model_validator(mode="after")
    def _whole(self) -> "ScoresRecord":
        if self.headline and (missing := [arm for arm in self.headline.arms if arm not in self.arms]):
            raise ValueError(f"the headline has {', '.join(missing)}, but arms does not")
        return self


class BoardEntry(_Record):
    """The part of a target's JSON that the board shows (docs/protocol.md has all of it)."""

    version: int
    target: TargetRecord
    protocol: ProtocolRecord
    images: ImagesRecord
    scores: ScoresRecord

    @property
    def measured(self) -> dict[str, ArmRecord]:
        """The arms with a valid seed."""
        return {name: arm for name, arm in self.scores.arms.items() if arm.seeds}

    def compares_by(self) -> str:
        """What two results with a headline have to have in common to be ranked in one table, as a hash."""
        return hashlib.sha256(json.dumps(headline_conditions(self.model_dump()), sort_keys=True).encode()).hexdigest()


def read_entry(data: Mapping[str, Any], file: str) -> BoardEntry:
    """A valid result (json_file.read_json has checked schema and version). RecipeError that names the file for others."""
    try:
        return BoardEntry.model_validate(data)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3]]
        raise RecipeError(
            f"{file}: this is not a complete result of evofool bench ({shortened('; '.join(faults), 300)}); measure it again"
        ) from None


def invalid_reason(data: Mapping[str, Any]) -> str:
    """Why a result is invalid, "" if it is valid."""
    if data.get("valid") is True:
        return ""
    flags = data.get("flags")
    found = [
        str(flag.get("message"))
        for flag in (flags if isinstance(flags, list) else ())
        if isinstance(flag, Mapping) and flag.get("level") == "invalid"
    ]
    return "; ".join(found) or "no reason is stored"
