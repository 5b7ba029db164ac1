"""The magnitude of photographs' spectra, and images that have it whatever their phases are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from evofool.ascend import spectrum
from evofool.ascend.draws import Draws
from evofool.ascend.params import Phases
from evofool.images import quantise
from tests.perf import photograph_spectrum


@pytest.mark.parametrize("shape", [(3, 224, 224), (3, 300, 380), (1, 28, 28), (2, 8, 7)])
def test_the_magnitude_falls_with_frequency_at_any_size(shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    magnitude = spectrum.photograph_magnitude(*shape)
    assert magnitude.shape == (channels, height, width // 2 + 1)
    assert (magnitude[:, 0, 0] == 0).all()
    assert np.isfinite(magnitude).all()
    assert (magnitude.reshape(channels, -1)[:, 1:] > 0).all()
    assert (magnitude[:, 0, 1] > magnitude[:, 0, 3]).all()
    assert (magnitude[:, 1, 0] > magnitude[:, 3, 0]).all()


def test_grey_has_the_magnitude_of_brightness() -> None:
    grey, colour = spectrum.photograph_magnitude(1, 32, 32), spectrum.photograph_magnitude(3, 32, 32)
    np.testing.assert_array_equal(grey[0], colour[0])


def test_the_table_of_images_of_a_known_magnitude_is_that_magnitude() -> None:
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    frequency[0, 0] = np.inf
    magnitude = torch.from_numpy(np.repeat(1 / frequency[None], 3, axis=0))
    param = Phases(magnitude, (3, 256, 256), deviation=0.2)  # so small that the sigmoid is a straight line
    images = param.decode(param.init(Draws(0, range(2), 0)), torch.arange(2)).numpy()
    brightness = spectrum.measure_photographs(list(quantise(images)))[0]
    # Rows before have few coefficients, and 8 bits add to those beyond. The last columns have those of the first column of
    # rfft2, which are partly mirror images of each other.
    difference = (brightness + np.log(spectrum._RADII)[:, None])[4:20, :5]
    assert np.ptp(difference) < 0.3


def test_the_file_that_is_shipped_is_that_of_the_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "again.json"
    monkeypatch.setattr("sys.argv", ["photograph_spectrum", "--out", str(path)])
    photograph_spectrum.main()
    shipped = spectrum._table()
    monkeypatch.setattr(spectrum, "SHIPPED", path)
    spectrum._table.cache_clear()
    np.testing.assert_allclose(spectrum._table(), shipped, atol=0.02)  # versions of Pillow decode and resize differently
    spectrum._table.cache_clear()
    assert path.stat().st_size < 200_000


def test_phases_do_not_change_the_magnitude_of_an_image() -> None:
    magnitude = torch.rand(1, 12, 6, generator=torch.Generator().manual_seed(0)) + 0.1
    param = Phases(magnitude, (1, 12, 10))
    state = param.init(Draws(0, range(3), 0))
    assert state.shape == (3, 1, 12, 6)
    images = param.decode(state, torch.arange(3))
    assert torch.allclose(param.decode(state[1:2], torch.tensor([1])), images[1:2], atol=1e-6)
    before = torch.logit(images)
    assert before.std((1, 2, 3), correction=0) == pytest.approx([1.25] * 3, rel=1e-4)
    # Those of rfft2's first and last column are partly mirror images of each other.
    ratio = torch.fft.rfft2(before).abs()[..., 1:-1] / magnitude[..., 1:-1]
    for each in ratio:
        assert each == pytest.approx(torch.full_like(each, float(each.mean())), rel=1e-3)
