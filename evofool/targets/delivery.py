"""A target as it is deployed: its answer to an image is made of those to what pipelines deliver (`through=jpeg:75,...`)."""

from evofool.errors import TargetError
from evofool.targets.classifier import Target
from evofool.targets.pipelines import codec_versions, pipelines, refuse_misfits
from evofool.targets.spec import Spec
from evofool.targets.through import LEAST, MEAN, Through


def through_of(spec: Spec) -> Through | None:
    """What the options through= and through_by= of a spec say; TargetError if they are wrong."""
    text, by = spec.options.get("through"), spec.options.get("through_by", MEAN)
    if by not in (MEAN, LEAST):
        raise TargetError(f'{spec.head}: through_by is "{by:.40}"; it has to be {MEAN} or {LEAST}')
    if text is None:
        if "through_by" in spec.options:
            raise TargetError(f"{spec.head}: through_by says how the answers of through= become one, which is not given")
        return None
    return Through(pipelines(text, spec.head), by)


def deliver(target: Target, through: Through) -> None:
    """From now on a target's answer to an image is made of those to what the pipelines deliver, each of which is a query.

    A network keeps its gradients and layers. TargetError for a step that its images are too small for.
    """
    if target.shape[0] not in (1, 3):
        raise TargetError(f"{target.name}: through= is for grey and RGB images, and these have {target.shape[0]} channels")
    refuse_misfits(through.pipelines, target.shape, f"{target.name}: through")
    target.deliver(through)
    count = len(through.pipelines)
    target.queries_per_image *= count
    target.details |= {"through": ",".join(pipeline.text for pipeline in through.pipelines)}
    if count > 1:
        target.details |= {"through_by": through.by}
    backend = target.details.get("backend")
    target.details["backend"] = ", ".join([*([backend] if backend else []), codec_versions(through.pipelines)])
    if target.top_k < len(target.labels) and count > 1:
        note = "through=: where an answer to one of the pipelines does not contain a class, its score there is a bound"
        target.details["notes"] = [*target.details.get("notes", ()), note]
