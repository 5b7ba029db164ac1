"""Measures of whether an image looks like its class, for photographs: what was tried, of which none is shipped.

    python -m tests.perf.photograph_likeness FOLDER --images DIR --elites RUN [RUN ...] --network SPEC [--network SPEC ...]

DIR has photographs named n01440764_tench.jpg, one of each class of ImageNet. RUN: elites of EfficientNet-Lite0; those with a
confidence of at least 0.5 count. SPEC: another classifier, SqueezeNet for instance. Classes 0, 4, 8, ... are one half, on
which a measure is chosen, and 2, 6, 10, ... the other; both have photographs, and every third or fourth class has drawings
made from its photograph by filters. The odd classes only teach. What the networks answer is kept in FOLDER.

Each measure is a score of an image for a class; higher is more like it. AUC: the share of pairs in which the image that
shows its class has a higher score for it than an elite has for its own. `seen` are the drawings whose thing one machine
rater named right, blind (photograph_likeness_seen.csv has all that it was shown); no person took part.
"""

import argparse
import csv
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from skimage import color, feature, filters
from skimage.feature import hog
from sklearn.cluster import KMeans

from evofool.explain.layers import last_layer
from evofool.images import resized
from evofool.printer import print_lines
from evofool.run.stored import StoredRun
from evofool.targets import target as load

SIDE = 224
CLASSES = np.arange(0, 1000, 2)
DRAWN = np.array([c for c in CLASSES.tolist() if c // 2 % 10 in (0, 3, 6)])
TAUGHT = np.arange(1, 1000, 2)
GROUP = 30  # classes that a class is one of: those whose logits go with its own most, over the photographs that teach
RIDGE = 30.0
SEEN = Path(__file__).with_name("photograph_likeness_seen.csv")
Images = np.ndarray
"""uint8 (B, 224, 224, 3)."""


class Part(NamedTuple):
    """Images and the class (B,) that each shows or is an elite of."""

    images: Images
    classes: np.ndarray


class Answers(NamedTuple):
    """Of a network: logits (B, K), and what its last linear layer is given, pooled over positions, (B, D)."""

    logits: np.ndarray
    points: np.ndarray


def photograph(file: Path) -> np.ndarray:
    """The central 224 x 224 pixels at a short side of 256."""
    with Image.open(file) as picture:
        whole = picture.convert("RGB")
    scale = 256 / min(whole.size)
    width, height = (round(side * scale) for side in whole.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    whole = whole.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(whole.crop((left, top, left + SIDE, top + SIDE)))


def grey(photo: np.ndarray) -> np.ndarray:
    return _rgb(_grey(photo))


def negative(photo: np.ndarray) -> np.ndarray:
    return 255 - photo


def poster(photo: np.ndarray) -> np.ndarray:
    """Four levels of grey, as many pixels of each."""
    smooth = ndimage.gaussian_filter(_grey(photo), 1.2)
    return _rgb(np.digitize(smooth, np.quantile(smooth, [0.25, 0.5, 0.75])) / 3)


def black_and_white(photo: np.ndarray) -> np.ndarray:
    """Otsu's threshold."""
    smooth = ndimage.gaussian_filter(_grey(photo), 1.2)
    return _rgb(1.0 * (smooth > filters.threshold_otsu(smooth)))


def edges(photo: np.ndarray) -> np.ndarray:
    """Canny's edges, black on white."""
    return _rgb(1.0 - ndimage.binary_dilation(feature.canny(_grey(photo), sigma=2.0)))


def sketch(photo: np.ndarray) -> np.ndarray:
    """Dark lines by a difference of Gaussians (Winnemoeller 2012)."""
    light = _grey(photo)
    difference = ndimage.gaussian_filter(light, 1.0) - 0.98 * ndimage.gaussian_filter(light, 1.6)
    return _rgb(np.where(difference >= 0, 1.0, 1 + np.tanh(60 * difference)))


def halftone(photo: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    screen = 0.5 + 0.25 * sum(np.cos((x + sign * y) * np.sqrt(0.5) * np.pi / 2.5) for sign in (1, -1))
    return _rgb(1.0 * (ndimage.gaussian_filter(_grey(photo), 1.0) > screen))


def silhouette(photo: np.ndarray) -> np.ndarray:
    """Black: the largest part that differs in colour from four colours of the border, by Otsu's threshold."""
    lab = ndimage.gaussian_filter(color.rgb2lab(photo), (2, 2, 0))
    border = np.concatenate(
        [lab[:12].reshape(-1, 3), lab[-12:].reshape(-1, 3), lab[:, :12].reshape(-1, 3), lab[:, -12:].reshape(-1, 3)]
    )
    centres = KMeans(4, n_init=2, random_state=0).fit(border[::7]).cluster_centers_
    far = np.min([np.linalg.norm(lab - centre, axis=2) for centre in centres], axis=0)
    mask = ndimage.binary_fill_holes(ndimage.binary_closing(far > filters.threshold_otsu(far), iterations=3))
    parts, count = ndimage.label(mask)
    if count:
        mask = parts == 1 + np.argmax(ndimage.sum(mask, parts, range(1, count + 1)))
    return _rgb(1.0 - mask)


DRAWINGS = {
    "grey": grey, "negative": negative, "poster": poster, "sketch": sketch, "edges": edges, "bw": black_and_white,
    "halftone": halftone, "silhouette": silhouette,
}  # fmt: skip
TAUGHT_KINDS = tuple(kind for kind in DRAWINGS if kind != "grey")


def _grey(photo: np.ndarray) -> np.ndarray:
    return np.asarray(color.rgb2gray(photo), np.float64)


def _rgb(light: np.ndarray) -> np.ndarray:
    return np.repeat((np.clip(light, 0, 1) * 255).round().astype(np.uint8)[..., None], 3, 2)


def parts_of(files: list[Path], runs: list[Path]) -> dict[str, Part]:
    """Photographs, drawings and elites by name; "taught ..." are those of the odd classes, and random genomes."""
    found = {"photo": Part(np.stack([photograph(files[c]) for c in CLASSES]), CLASSES)}
    taught = np.stack([photograph(files[c]) for c in TAUGHT])
    drawn = found["photo"].images[np.isin(CLASSES, DRAWN)]
    for kind, draw in DRAWINGS.items():
        found[kind] = Part(np.stack([draw(photo) for photo in drawn]), DRAWN)
        if kind in TAUGHT_KINDS:
            found[f"taught {kind}"] = Part(np.stack([draw(photo) for photo in taught]), TAUGHT)
    found["taught photo"] = Part(taught, TAUGHT)
    found["taught random"] = Part(random_images(), np.full(600, -1))
    for run in runs:
        with StoredRun(run) as stored:
            elites = [e for e in stored.elites() if e.row.class_id % 2 == 0 and e.confidence >= 0.5]
        images = np.stack([elite.image for elite in elites]).transpose(0, 2, 3, 1)
        found[f"elites {run.name}"] = Part(images, np.array([elite.row.class_id for elite in elites]))
    return found


def random_images() -> Images:
    """600 images of random genomes and of their mutants, canvases and CPPNs; nothing was searched for."""
    from evofool import recipe
    from genomes.random import Key

    images = []
    for name in ("imagenet", "imagenet-cppn"):
        encoding = recipe.load(name, []).encoding.build((3, SIDE, SIDE))
        genomes = encoding.random(60, Key(99, 0))
        for stage in range(5):
            images.append(encoding.render(genomes))
            for step in range(8):
                genomes = encoding.vary(genomes, genomes[::-1].copy(), Key(99, 1 + stage * 8 + step))
    return np.concatenate(images).transpose(0, 2, 3, 1)


def answers(folder: Path, spec: str, parts: dict[str, Part]) -> dict[str, Answers]:
    """Kept in the folder by the network's fingerprint and the digest of the images."""
    network = load(spec)
    assert network.network is not None
    module, prepare = network.network.module, network.network.prepare
    kept: list[torch.Tensor] = []
    layer = dict(module.named_modules())[last_layer(network)]
    layer.register_forward_hook(lambda _layer, args, _output: kept.append(args[0]))
    found = {}
    for name, part in parts.items():
        digest = hashlib.sha256(part.images.tobytes()).hexdigest()[:16]
        file = folder / f"{network.fingerprint()[:12]}-{digest}.npz"
        if not file.exists():
            logits, points = [], []
            with torch.inference_mode():
                for begin in range(0, len(part.images), 16):
                    images = part.images[begin : begin + 16].transpose(0, 3, 1, 2)
                    inputs = np.stack([resized(image, network.shape) for image in images])
                    kept.clear()
                    logits.append(module(prepare(torch.from_numpy(inputs).float())).flatten(1).numpy())
                    points.append((kept[-1].flatten(2).mean(2) if kept[-1].dim() == 4 else kept[-1]).numpy())
            np.savez(file, logits=np.concatenate(logits), points=np.concatenate(points))
            print_lines(f"{spec.split('?')[0]}: {len(part.images)} images, {name}")
        with np.load(file) as stored:
            found[name] = Answers(stored["logits"].astype(np.float64), stored["points"].astype(np.float64))
    return found


Scores = Callable[[str, np.ndarray], np.ndarray]
"""(B,) of the images of a part for the classes (B,)."""


def measures_of(given: dict[str, Answers]) -> dict[str, Scores]:
    """The measures by one network."""
    logits, points = ({name: part[k] for name, part in given.items()} for k in (0, 1))
    correlated = np.corrcoef((logits["taught photo"] - logits["taught photo"].mean(1, keepdims=True)).T)
    groups = np.argsort(-correlated, axis=1)[:, :GROUP]
    unit = {name: part / np.linalg.norm(part, axis=1, keepdims=True) for name, part in points.items()}
    taught = dict(zip(points, _taught(logits, points), strict=True))

    def own(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return values[np.arange(len(classes)), classes]

    def log_odds(name: str, classes: np.ndarray) -> np.ndarray:
        rest = logits[name].copy()
        rest[np.arange(len(classes)), classes] = -np.inf
        return own(logits[name], classes) - _log_sum(rest)

    def nearest(name: str, classes: np.ndarray) -> np.ndarray:
        return _nearest(unit[name], unit["photo"], classes, groups)

    def group(name: str, classes: np.ndarray) -> np.ndarray:
        return _log_sum(np.take_along_axis(logits[name], groups[classes], 1)) - _log_sum(logits[name])

    return {
        "log-odds of the class": log_odds,
        "rank of the class": lambda name, c: -np.log1p((logits[name] > own(logits[name], c)[:, None]).sum(1)),
        "logit of the class, standardised": lambda name, c: own(_standard(logits[name]), c),
        "log-probability of the group": group,
        "features, nearest of the group": nearest,
        "taught on drawings, class": lambda name, c: own(taught[name], c),
        "taught on drawings, group": lambda name, c: np.take_along_axis(taught[name], groups[c], 1).mean(1),
    }


def _taught(logits: dict[str, np.ndarray], points: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Ridge regression from the features of drawings to the standardised logits of the photographs that they are made from.

    Images of random genomes, twice, are to have the photographs' mean.
    """
    wanted = _standard(logits["taught photo"])
    kinds = ["taught photo", *(f"taught {kind}" for kind in TAUGHT_KINDS)]
    x = np.concatenate([*(points[kind] for kind in kinds), *[points["taught random"]] * 2])
    mean = wanted.mean(0)
    y = np.concatenate([*[wanted - mean] * len(kinds), np.zeros((2 * len(points["taught random"]), wanted.shape[1]))])
    centre, scale = x.mean(0), x.std(0) + 1e-6
    scaled = (x - centre) / scale
    weights = np.linalg.solve(scaled.T @ scaled + RIDGE * np.eye(scaled.shape[1]), scaled.T @ y)
    return [(part - centre) / scale @ weights for part in points.values()]


def gradient_measures(parts: dict[str, Part], groups: np.ndarray) -> dict[str, Scores]:
    """Measures without a network: the nearest photograph of the class's group by HOG, whole or cropped, and by edges."""
    small = {
        name: [
            np.asarray(Image.fromarray(i).convert("L").resize((112, 112), Image.Resampling.BOX), np.float64)
            for i in part.images
        ]
        for name, part in parts.items()
        if not name.startswith("taught")
    }

    def measure(space: Callable[[np.ndarray], np.ndarray]) -> Scores:
        of = {name: np.stack([space(image) for image in images]) for name, images in small.items()}
        return lambda name, classes: _nearest(of[name], of["photo"], classes, groups)

    return {
        "HOG, nearest of the group": measure(_hog),
        "HOG, cropped to the gradients, nearest of the group": measure(lambda image: _hog(_cropped(image))),
        "edges, nearest of the group": measure(_edges),
    }


def _hog(image: np.ndarray) -> np.ndarray:
    return np.asarray(hog(image, 9, (14, 14), (2, 2), "L2-Hys"))


def _cropped(image: np.ndarray) -> np.ndarray:
    """The box that has all but 5% of the gradients on each side, at the old size."""
    slope = filters.sobel(ndimage.gaussian_filter(image, 1.5))
    box = []
    for axis in (1, 0):
        total = np.cumsum(slope.sum(axis))
        begin, end = (int(np.searchsorted(total, share * total[-1])) for share in (0.05, 0.95))
        box.append(slice(begin, max(end, begin + 8) + 1))
    part = Image.fromarray(image[box[0], box[1]].astype(np.uint8))
    return np.asarray(part.resize((112, 112), Image.Resampling.BILINEAR), np.float64)


def _edges(image: np.ndarray) -> np.ndarray:
    slope = ndimage.zoom(filters.sobel(ndimage.gaussian_filter(image, 1.5)), 24 / 112, order=1).ravel()
    slope = slope - slope.mean()
    return slope / (np.linalg.norm(slope) + 1e-9)


def _nearest(queries: np.ndarray, real: np.ndarray, classes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Minus the squared distance to the nearest photograph of the group, never the one of the class itself."""
    squared = (queries**2).sum(1)[:, None] + (real**2).sum(1) - 2 * queries @ real.T
    allowed = (groups[classes][:, :, None] == CLASSES).any(1) & (classes[:, None] != CLASSES)
    return -np.where(allowed, squared, np.inf).min(1)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)


def _log_sum(values: np.ndarray) -> np.ndarray:
    most = values.max(1, keepdims=True)
    return np.asarray(np.log(np.exp(values - most).sum(1)) + most[:, 0])


def auc(low: np.ndarray, high: np.ndarray) -> float:
    return float((np.less.outer(low, high) + 0.5 * np.equal.outer(low, high)).mean())


def interval(low: np.ndarray, high: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    values = [auc(rng.choice(low, len(low)), rng.choice(high, len(high))) for _ in range(1000)]
    return f"{auc(low, high):.3f} [{np.quantile(values, 0.025):.3f}, {np.quantile(values, 0.975):.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--elites", type=Path, nargs="+", required=True)
    parser.add_argument("--network", action="append", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    parts = parts_of(sorted(args.images.iterdir()), args.elites)
    with SEEN.open(newline="", encoding="utf-8") as lines:
        seen = {(row["kind"], int(row["class"])) for row in csv.DictReader(lines) if row["seen"] == "1"}
    for k, spec in enumerate(args.network):
        given = answers(args.folder, spec, parts)
        if not k:
            logits = given["taught photo"].logits
            correlated = np.corrcoef((logits - logits.mean(1, keepdims=True)).T)
            print_lines("", "without a network")
            _print(gradient_measures(parts, np.argsort(-correlated, axis=1)[:, :GROUP]), parts, seen)
        print_lines("", spec.split("?")[0])
        _print(measures_of(given), parts, seen)


def _print(measures: dict[str, Scores], parts: dict[str, Part], seen: set[tuple[str, int]]) -> None:
    """By half, run and measure: AUC of photographs, drawings and seen drawings, and shares above a limit."""
    named = {kind: np.array([(kind, c) in seen for c in DRAWN.tolist()]) for kind in DRAWINGS}
    for half, title in ((0, "choosing"), (1, "confirming")):
        for run in (name for name in parts if name.startswith("elites")):
            mine = {name: part.classes // 2 % 2 == half for name, part in parts.items()}
            if not mine[run].any():
                print_lines(f"{title} half: {run} has none with a confidence of 0.5")
                continue
            print_lines(
                f"{title} half, {mine[run].sum()} {run}: {', '.join(('photo', *DRAWINGS, 'seen', 'at 5%: seen, elites'))}"
            )
            for measure, score in measures.items():
                values = {name: score(name, parts[name].classes) for name in ("photo", *DRAWINGS, run)}
                elites, photos = (values[name][mine[name]] for name in (run, "photo"))
                shown = np.concatenate([values[kind][mine[kind] & named[kind]] for kind in DRAWINGS])
                of_kinds = " ".join(f"{auc(elites, values[kind][mine[kind]]):.2f}" for kind in DRAWINGS)
                least = np.quantile(photos, 0.05)
                at_5 = f"{(shown >= least).mean():.2f} {(elites >= least).mean():.2f}"
                print_lines(
                    f"  {measure}: {interval(elites, photos)} {of_kinds} {interval(elites, shown)} ({len(shown)}) {at_5}"
                )


if __name__ == "__main__":
    main()
