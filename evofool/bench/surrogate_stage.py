"""The surrogates of the arm of that name: which networks may stand in for a target, and how often they agree with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evofool.ascend.kinship import Kinship, agreement
from evofool.ascend.surrogates import Climb, Surrogates, lacks_gradients
from evofool.bench.arms import SURROGATE
from evofool.bench.cell_job import JobSurrogate
from evofool.bench.prepare import FOLDER, PreparedTarget
from evofool.bench.real import with_progress
from evofool.errors import RecipeError, StoreError, TargetError
from evofool.json_file import read_json, write_json
from evofool.targets import Target, check_spec, is_black_box
from evofool.targets import target as load_target
from genomes import Direct

_SCHEMA, _VERSION = "evofool.bench.kinship", 1


@dataclass(frozen=True)
class ArmSurrogates:
    """The surrogates of a target. kinship: of each, on the benchmark's real images; warnings: on networks left out."""

    networks: tuple[JobSurrogate, ...] = ()
    kinship: tuple[Kinship, ...] = ()
    warnings: tuple[str, ...] = ()


def refuse_surrogates(specs: Sequence[str], arms: Sequence[str]) -> None:
    """RecipeError for a surrogate that no target can have, and where only one of surrogates and their arm is given."""
    if SURROGATE in arms and not specs:
        raise RecipeError(
            f"the arm {SURROGATE} climbs the gradients of other networks than the target: name them by --surrogate SPEC, or "
            'surrogates = ["SPEC"] in a bench recipe'
        )
    if specs and SURROGATE not in arms:
        raise RecipeError(
            f"surrogates are for the arm {SURROGATE}, and the arms are {', '.join(arms)}: add it, or name no surrogates"
        )
    for spec in specs:
        try:
            if is_black_box(spec):
                raise lacks_gradients(spec)
            check_spec(spec)
        except TargetError as error:
            raise RecipeError(f"surrogates: {error}") from None


def usable_surrogates(specs: Sequence[str], target: Target) -> tuple[list[Target], list[str]]:
    """(the networks that can be surrogates of a target, warnings on the others).

    The target itself is not among them, nor is a network without a class of the target. RecipeError for one that cannot be
    loaded or has no gradients.
    """
    networks, warnings = list[Target](), list[str]()
    for spec in dict.fromkeys(specs):
        try:
            network = load_target(spec)
        except TargetError as error:
            raise RecipeError(f"surrogates: {error}") from None
        if not network.differentiable:
            raise RecipeError(f"surrogates: {lacks_gradients(network.name)}")
        if network.fingerprint() == target.fingerprint():
            warnings.append(f"{network.name} is left out of the surrogates of this target: it is the target itself")
            continue
        try:
            _together([network], target)
        except TargetError as error:
            warnings.append(f"{network.name} is left out of the surrogates of this target: {error}")
        else:
            networks.append(network)
    return networks, warnings


def choose_surrogates(
    specs: Sequence[str], prepared: PreparedTarget, folder: Path, report: Callable[[str], None]
) -> ArmSurrogates:
    """The surrogates of a target, with their kinship on the real images: measured once, and then read from folder.

    The target's classes are those of its calibration, so that it is not queried. report: as in prepare.
    """
    networks, warnings = usable_surrogates(specs, prepared.target)
    if not networks:
        return ArmSurrogates(warnings=tuple(warnings))
    listed = tuple(JobSurrogate(network.name, network.fingerprint()) for network in networks)
    made_of = {
        "target": prepared.calibration.fingerprint,
        "images": prepared.calibration.sha256,
        "surrogates": [surrogate.fingerprint for surrogate in listed],
    }
    path = folder / FOLDER / f"{prepared.name}.kinship.json"
    kinship = _stored(path, made_of) or _measured(networks, prepared, report)
    write_json(path, {"schema": _SCHEMA, "version": _VERSION, **made_of, "kinship": [asdict(each) for each in kinship]})
    return ArmSurrogates(listed, tuple(kinship), tuple(warnings))


def kinship_rows(surrogates: ArmSurrogates) -> list[dict[str, Any]]:
    """What a target's JSON has of its surrogates; their names are as they were written."""
    return [
        {
            "name": kin.surrogate,
            "fingerprint": network.fingerprint,
            "images": kin.images,
            "agreement": kin.agreement,
            "low": kin.interval[0],
            "high": kin.interval[1],
            "by_chance": kin.by_chance,
        }
        for network, kin in zip(surrogates.networks, surrogates.kinship, strict=True)
    ]


def _together(networks: Sequence[Target], target: Target) -> Surrogates:
    return Surrogates(networks, target, Direct(*target.shape), Climb())


def _measured(networks: Sequence[Target], prepared: PreparedTarget, report: Callable[[str], None]) -> list[Kinship]:
    surrogates = _together(networks, prepared.target)
    real = with_progress(prepared.real, lambda message: report(f"comparing surrogates with {prepared.name}: {message}"))
    theirs = np.concatenate([surrogates.classes(images) for images, _ in real.batches()], axis=1)
    ours = prepared.calibration.logits.argmax(axis=1)
    return [agreement(network.name, ours, row) for network, row in zip(networks, theirs, strict=True)]


def _stored(path: Path, made_of: Mapping[str, Any]) -> list[Kinship] | None:
    """The kinship in a file of the same target, images and surrogates; None if there is none."""
    try:
        record = read_json(path, _SCHEMA, _VERSION, "it is measured again")
        if any(record.get(key) != value for key, value in made_of.items()):
            return None
        return [_kinship(each) for each in record["kinship"]]
    except (StoreError, KeyError, TypeError, ValueError):
        return None


def _kinship(record: Mapping[str, Any]) -> Kinship:
    low, high = map(float, record["interval"])
    shares = float(record["agreement"]), (low, high), float(record["by_chance"])
    return Kinship(str(record["surrogate"]), int(record["images"]), *shares)
