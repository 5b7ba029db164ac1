"""Digit networks with and without defences, and the outliers that they are trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from evofool.bench.retraining import adversarial, training
from evofool.bench.retraining.outliers import ROUNDS, cppns, outliers, shuffled, smooth_noise
from evofool.errors import RecipeError, StoreError, TargetError
from evofool.targets import target
from evofool.targets.networks import LeNet
from evofool.targets.train_lenet import as_tensor
from genomes import CPPN
from genomes.random import Key

pytestmark = pytest.mark.slow


def stand_ins(count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (count, 1, 28, 28): class k has a bright bar from row 2k + 3; labels cycle."""
    labels = np.arange(count) % 10
    images = np.zeros((count, 1, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[0, 2 * label + 3 : 2 * label + 7] = 255
    return images, labels.astype(np.int64)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training takes less than a second."""
    monkeypatch.setattr(training, "training_half", lambda: stand_ins(64))


@pytest.mark.parametrize("defence", training.DEFENCES)
def test_a_network_depends_on_its_seed_and_nothing_else(defence: str) -> None:
    images, labels = stand_ins(64)
    state = torch.get_rng_state()
    first, again, other = (training.train(seed, defence, images, labels, epochs=1).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc2.weight"], other["fc2.weight"])


def test_a_reject_class_gets_the_fooling_images_and_no_digits() -> None:
    images, labels = stand_ins()
    fooling = images.swapaxes(2, 3)[:5].copy()  # vertical bars
    network = training.train(0, "reject-class", images, labels, fooling=fooling, epochs=12)
    with torch.no_grad():
        assert network(as_tensor(fooling)).argmax(1).tolist() == [10] * 5
        assert (network(as_tensor(images)).argmax(1).numpy() == labels).mean() > 0.9


@pytest.mark.parametrize("defence", ["reject-class", "outlier-exposure"])
def test_the_loss_equals_the_papers(defence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "augment", lambda images, draws: images)
    images, labels = stand_ins(30)
    fooling = images[:10, :, ::-1].copy()
    network = LeNet(classes=11 if defence == "reject-class" else 10).eval()
    x, y, others = as_tensor(images), torch.from_numpy(labels), as_tensor(fooling)
    found = training._LossWithOutliers(defence, images, fooling, 0.25, seed=0)(network, x, y)  # 30 digits and all ten others
    with torch.no_grad():
        of_digits, of_others = network(x), network(others)
        if defence == "reject-class":
            losses = [-z.log_softmax(0)[c] for z, c in zip(of_digits, labels, strict=True)] + [
                -z.log_softmax(0)[10] for z in of_others
            ]
            wanted = sum(losses) / 40
        else:
            to_uniform = F.cross_entropy(of_others, torch.full_like(of_others, 0.1))
            wanted = F.cross_entropy(of_digits, y) + 0.5 * to_uniform
    assert found.item() == pytest.approx(float(wanted), rel=1e-5)


def test_an_adversary_stays_near_the_images_and_finds_a_higher_loss_than_random_signs() -> None:
    images, labels = stand_ins(40)
    network = training.train(0, "none", images, labels, epochs=4)
    network.zero_grad()  # of the training
    x, y = as_tensor(images), torch.from_numpy(labels)
    draws = torch.Generator().manual_seed(0)
    start = torch.rand(x.shape, generator=draws) * 2 - 1
    for share in (0.5, 1.0):
        found = adversarial.worst_near(network, x, y, start, share)
        radius = share * adversarial.RADIUS
        assert (found - x).abs().max() <= radius + 1e-6
        assert 0 <= found.min() <= found.max() <= 1
        with torch.no_grad():
            others = [(x + radius * (torch.rand(x.shape, generator=draws) - 0.5).sign()).clamp(0, 1) for _ in range(20)]
            worst, *random = (F.cross_entropy(network(z), y, reduction="none") for z in (found, *others))
        assert (worst >= torch.stack(random).max(0).values).float().mean() > 0.9
        assert all(p.grad is None for p in network.parameters())


def test_adversarial_training_is_on_these_images_alone_and_the_radius_grows() -> None:
    images, labels = stand_ins(20)
    network, x, y = LeNet().eval(), as_tensor(images), torch.from_numpy(labels)
    loss, farthest = adversarial.AdversarialLoss(3), []
    for batch in (1, 150, 300, 900):
        loss.batches = batch - 1
        seen: list[torch.Tensor] = []
        hook = network.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].detach()))
        found = loss(network, x, y)
        hook.remove()
        assert len(seen) == adversarial.STEPS + 1
        assert found.item() == pytest.approx(F.cross_entropy(network(seen[-1]), y).item())
        farthest.append((seen[-1] - x).abs().max().item())
    assert farthest == pytest.approx([0.001, 0.15, 0.3, 0.3], abs=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_outliers_have_the_given_share_of_all_images(share: float) -> None:
    images, labels = stand_ins(64)
    seen = []

    class Counting(LeNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return super().forward(x)

    loss = training._LossWithOutliers("reject-class", images, images[:7], share, seed=0)
    with torch.no_grad():
        for _ in range(20):
            loss(Counting(classes=11), as_tensor(images), torch.from_numpy(labels))
    assert 1 - 20 * 64 / sum(seen) == pytest.approx(share, abs=0.002)


def test_all_fooling_images_are_used_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "augment", lambda images, draws: images)
    fooling = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 28, 28), np.uint8)
    loss = training._LossWithOutliers("reject-class", fooling, fooling, 0.5, seed=0)
    shown = torch.cat([loss._next(10) for _ in range(14)])[:, 0, 0, 0] * 255
    assert np.bincount(shown.round().int().numpy()).tolist() == [20] * 7


def test_an_exception_in_progress_ends_the_training(little: None, tmp_path: Path) -> None:
    def stop(done: int, epochs: int) -> None:
        raise InterruptedError(f"{done} of {epochs}")

    with pytest.raises(InterruptedError, match="1 of 3"):
        training.trained(tmp_path, "none", 0, epochs=3, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("little")
def test_an_existing_network_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = training.trained(tmp_path, "reject-class", 1, epochs=1)
    assert path.name == "reject-class-1.safetensors"
    written = path.read_bytes()
    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained again"))
    assert training.trained(tmp_path, "reject-class", 1, epochs=1) == path
    assert path.read_bytes() == written
    with pytest.raises(StoreError, match=r"trained differently.*1 epochs.*2 epochs"):
        training.trained(tmp_path, "reject-class", 1, epochs=2)


@pytest.mark.usefixtures("little")
def test_copies_and_defences_have_different_weights(tmp_path: Path) -> None:
    files = [training.trained(tmp_path, defence, copy, epochs=1) for defence in training.DEFENCES for copy in (0, 1)]
    assert len({load_file(file)["conv1.weight"].numpy().tobytes() for file in files}) == 2 * len(training.DEFENCES)


@pytest.mark.usefixtures("little")
def test_a_network_with_a_reject_class_is_a_target_with_eleven_labels(tmp_path: Path) -> None:
    rejects, exposed = (training.trained(tmp_path, defence, 0, epochs=1) for defence in ("reject-class", "outlier-exposure"))
    assert list(target(f"lenet?weights={rejects}").labels) == [*"0123456789", "nothing"]
    assert list(target(f"lenet?weights={exposed}").labels) == [*"0123456789"]
    assert target(f"lenet?weights={rejects}").logits(stand_ins(3)[0]).shape == (3, 11)


def test_a_network_with_twelve_outputs_is_refused(tmp_path: Path) -> None:
    save_file(LeNet(classes=12).state_dict(), tmp_path / "twelve.safetensors")
    with pytest.raises(TargetError, match=r"fc2\.bias \(12,\) instead of \(10,\)"):
        target(f"lenet?weights={tmp_path / 'twelve.safetensors'}")


def test_an_unknown_defence_is_refused_with_the_list_of_defences() -> None:
    with pytest.raises(RecipeError, match=r'no defence "prayer"(.|\n)*reject-class'):
        training.train(0, "prayer", *stand_ins())


def test_seeds_of_different_numbers_differ() -> None:
    seeds = {training.seed_of(a, b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 1 << 53 for seed in seeds)


# --- outliers


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    return outliers(1000, stand_ins()[0], seed=1, part=2)


def test_outliers_are_keyed_by_seed_and_part(many: np.ndarray) -> None:
    digits = stand_ins()[0]
    assert many.shape == (1000, 1, 28, 28)
    assert many.dtype == np.uint8
    assert np.array_equal(outliers(1000, digits, 1, 2), many)
    for seed, part in ((1, 3), (2, 2)):
        assert (outliers(1000, digits, seed, part) != many).any(axis=(1, 2, 3)).mean() > 0.9


def test_no_outlier_is_one_of_the_digits(many: np.ndarray) -> None:
    digits = {image.tobytes() for image in stand_ins()[0]}
    assert not digits & {image.tobytes() for image in many}


def test_cppns_have_0_to_all_rounds_of_mutation() -> None:
    count = 3 * (ROUNDS + 1)
    made = cppns(count, seed=5, part=1)
    encoding = CPPN(mode="grey", height=28, width=28)
    genomes = encoding.random(count, Key(5, 1 << 8))
    assert np.array_equal(made[:3], encoding.render(genomes[:3]))
    for row in (3, count - 1):  # one round, and all of them
        genome = genomes[row : row + 1]
        for done in range(1, row // 3 + 1):
            genome = encoding.vary(genome, genome, Key(5, (1 << 8) + done, row))
        assert np.array_equal(made[row], encoding.render(genome)[0])


def test_a_shuffled_image_has_the_same_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 28, 28), np.uint8)
    mixed = shuffled(images, np.random.default_rng(1))
    for before, after in zip(images, mixed, strict=True):
        assert np.array_equal(np.sort(before.ravel()), np.sort(after.ravel()))
        assert not np.array_equal(before, after)


def test_smooth_noise_is_smoother_than_noise() -> None:
    smooth = smooth_noise(100, np.random.default_rng(0)).astype(float)
    rough = np.random.default_rng(0).integers(0, 256, smooth.shape).astype(float)
    steps = [np.abs(np.diff(images, axis=3)).mean() / images.std() for images in (smooth, rough)]
    assert steps[0] < steps[1] / 2
    contrasts = smooth.std(axis=(1, 2, 3))
    assert contrasts.max() > 3 * contrasts.min()
