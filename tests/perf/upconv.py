"""How near do decoders of layers come to pictures, beside a ridge regression, the mean picture and a search by gradients?

    python -m tests.perf.upconv efficientnet-lite0 --photographs DIR
    python -m tests.perf.upconv lenet

For each layer a decoder is learned and kept, as by `evofool invert LAYER IMAGE --target T --train DIR`, so a second run
measures only. The first table has errors on the held-out pictures: of pixels, beside the two that need no decoder, and with
changed codes; of the mean colour; and the share of pictures whose inverse correlates best with the picture where it is,
within 4 of 64 pixels, beside that of other pictures' inverses. The second compares the decoder with Mahendran & Vedaldi's
search on the first held-out pictures. Errors are over the mean distance between two held-out pictures. Settings of training
were chosen on _blocks.4 and _fc of EfficientNet-Lite0 and fc1 of LeNet.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from evofool.explain.inversion import invert as search
from evofool.explain.layers import evenly, in_order
from evofool.explain.upconv.codes import binarised, dropped_out
from evofool.explain.upconv.errors import distances, pair_distance
from evofool.explain.upconv.inversion import codes_of, compared, invert
from evofool.explain.upconv.model import LayerInverse, learned_inverse
from evofool.explain.upconv.samples import by_pixels, held_out, inputs, pictures_of
from evofool.explain.upconv.training import TrainingSettings
from evofool.images import resized
from evofool.pages.sheet import Tile, contact_sheet
from evofool.targets import Target, target
from evofool.targets.digits import digits
from evofool.targets.photos import to_input

_NEAR = 4 / 64  # of the longer side
_LAYERS = {
    "efficientnet-lite0": ("_blocks.0", "_blocks.4", "_blocks.8", "_blocks.13", "_fc"),
    "lenet": ("conv1", "conv2", "fc1"),
}


def colour_error(drawn: np.ndarray, images: np.ndarray) -> float:
    """Of the mean colours, float (n, C, h, w) on [0, 1], over the mean distance between those of two pictures."""
    colours = [rows.mean((2, 3)) for rows in (drawn, images)]
    return float(distances(*colours).mean()) / pair_distance(colours[1])


def in_place(drawn: np.ndarray, images: np.ndarray) -> float:
    """The share of pictures with which their inverse correlates best where it is, or within 4 of 64 pixels."""
    grey = [rows.mean(1) - rows.mean((1, 2, 3)).reshape(-1, 1, 1) for rows in (drawn, images)]
    spectra = [np.fft.fft2(rows) for rows in grey]
    correlation = np.fft.ifft2(spectra[0] * spectra[1].conj()).real
    height, width = correlation.shape[1:]
    best = correlation.reshape(len(correlation), -1).argmax(1)
    away = [np.minimum(moved, size - moved) for moved, size in zip(divmod(best, width), (height, width), strict=True)]
    return float((np.hypot(*away) <= _NEAR * max(height, width)).mean())


def print_row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def figures(network: Target, model: LayerInverse, images: np.ndarray, seconds: float) -> list[str]:
    """A row of the first table."""
    codes = codes_of(network, images, model)
    shape = model.decoder.layout.image
    small = np.stack([resized(image, shape) for image in images]) / 255.0
    drawn = model.draw(codes).astype(np.float64)
    changed = [
        float(distances(model.draw(rows), small).mean()) / model.image_unit
        for rows in (binarised(codes), dropped_out(codes))
    ]
    weights = sum(parameter.numel() for parameter in model.decoder.parameters())
    return [
        model.layer,
        " x ".join(map(str, model.decoder.layout.code)),
        f"{weights / 1000:,.0f}",
        f"{seconds:.0f}",
        *(f"{error:.3f}" for error in (model.error, model.of_ridge, model.of_mean, *changed)),
        f"{colour_error(drawn, small):.3f}",
        f"{in_place(drawn, small):.0%} ({in_place(np.roll(drawn, 1, 0), small):.0%})",
    ]


def against_search(network: Target, model: LayerInverse, images: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Print a row of the second table; both image errors, and how many times as long the search takes."""
    invert(network, images[:1], model)  # the first pass prepares the network
    by_decoder = invert(network, images, model)
    began = time.process_time()
    found = search(network, images, model.layer, seed=seed).images
    by_search = compared(network, images, found, model, (time.process_time() - began) / len(images))
    errors = [float(by.image_errors.mean()) for by in (by_decoder, by_search)]
    of_codes = [float(by.code_errors.mean()) for by in (by_decoder, by_search)]
    times = by_search.seconds / by_decoder.seconds
    classes = network.logits(images).argmax(1)
    kept = [f"{int((by.classes == classes).sum())} of {len(images)}" for by in (by_decoder, by_search)]
    seconds = [f"{1000 * by.seconds:,.1f}" for by in (by_decoder, by_search)]
    pairs = (seconds, [f"{e:.3f}" for e in errors], [f"{e:.3f}" for e in of_codes], kept)
    print_row(model.layer, *(cell for pair in pairs for cell in pair), f"{times:,.0f}")
    return errors[0], errors[1], times


def sheet(network: Target, models: Sequence[LayerInverse], path: Path) -> None:
    """For each of four photographs of scikit-image a row of inverses by decoders, a column for each layer."""
    tiles = []
    for name in ("chelsea", "coffee", "astronaut", "rocket"):
        image = to_input(Image.fromarray(getattr(data, name)()), network)[None]
        tiles.append(Tile(image[0], name, note=network.labels[int(network.logits(image)[0].argmax())]))
        for model in models:
            found = invert(network, image, model)
            tiles.append(Tile(found.pictures[0], model.layer, note=f"image error {found.image_errors[0]:.2f}"))
    contact_sheet(tiles, columns=1 + len(models), tile=128).save(path, quality=80, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", help="a network")
    parser.add_argument("--photographs", type=Path, help="a folder; without it MNIST's digits")
    parser.add_argument("--layers", help="separated by commas; five evenly by depth by default")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--feature-loss", type=float, default=0.0)
    parser.add_argument("--searched", type=int, default=8, help="held-out pictures that are inverted by search")
    parser.add_argument("--sheet", type=Path, help="also write inverses of four photographs of scikit-image as one JPEG")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    network = target(args.target)
    layers: Sequence[str] = args.layers.split(",") if args.layers else _LAYERS.get(args.target, tuple(evenly(network)))
    pictures = pictures_of(args.photographs) if args.photographs else by_pixels(digits()[0])
    settings = TrainingSettings(epochs=args.epochs, feature_weight=args.feature_loss, seed=args.seed)
    apart = held_out([*pictures])
    images = np.concatenate([inputs(digest, pictures[digest], network, 1, args.seed) for digest in apart])
    models = []
    print_row("layer", "code", "k weights", "core s", "error", "ridge", "mean", "binarised", "dropped", "colour", "in place")
    print_row(*["---"] * 11)
    for layer in layers:
        began = time.process_time()
        model, _ = learned_inverse(network, layer, pictures, settings)
        models.append(model)
        print_row(*figures(network, model, images, time.process_time() - began))
    print()
    heads = ("ms, decoder", "search", "image error, decoder", "search", "feature error, decoder", "search", "class, decoder")
    print_row("layer", *heads, "search", "times faster")
    print_row(*["---"] * 10)
    results = {model.layer: against_search(network, model, images[: args.searched], args.seed) for model in models}
    errors = [next(m.error for m in models if m.layer == layer) for layer in in_order(network, list(layers))]
    bounds = {"the error grows with depth": errors == sorted(errors)}
    if (found := results.get("_blocks.4")) is not None:
        error = next(model.error for model in models if model.layer == "_blocks.4")
        bounds |= {
            "_blocks.4: error at most 0.40": error <= 0.40,
            "_blocks.4: at most 0.85 of the search's": found[0] <= 0.85 * found[1],
            "_blocks.4: at least 100 times as fast": found[2] >= 100,
        }
    for what, held in bounds.items():
        print(f"{what}: {'held' if held else 'MISSED'}")
    if args.sheet:
        sheet(network, models, args.sheet)


if __name__ == "__main__":
    main()
