"""Animations, read back by Pillow and by ffmpeg."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evofool.errors import ImageError
from evofool.images import to_pil
from evofool.pages import animation
from evofool.pages.animation import FRAME_SECONDS, write_animation


def frames(height: int = 24, width: int = 33, channels: int = 3) -> list[np.ndarray]:
    """Three frames, each of one colour, which GIF's palettes and H.264 keep."""
    return [np.full((channels, height, width), value, np.uint8) for value in (40, 120, 200)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["film.gif", "film.png", "FILM.GIF", "film.apng"])
def test_pillow_reads_what_was_written(name: str, channels: int, tmp_path: Path) -> None:
    (tmp_path / name).write_text("an earlier file")
    assert write_animation(tmp_path / name, iter(frames(channels=channels))) == (33, 24)
    with Image.open(tmp_path / name) as found:
        assert (found.n_frames, found.size, found.info.get("loop", 0)) == (3, (33, 24), 0)
        for k, frame in enumerate(frames(channels=channels)):
            found.seek(k)
            assert found.info["duration"] == pytest.approx(1000 * FRAME_SECONDS)
            assert np.array_equal(np.asarray(found.convert("RGB")), np.asarray(to_pil(frame).convert("RGB")))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_ffmpeg_reads_an_mp4_whose_sides_became_even(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    assert write_animation(tmp_path / "film.mp4", frames()) == (32, 24)
    decode = [ffmpeg.get_ffmpeg_exe(), "-i", str(tmp_path / "film.mp4"), "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    done = subprocess.run(decode, capture_output=True, check=True)
    (stream,) = [line for line in done.stderr.decode().splitlines() if "Video: h264" in line]
    assert [part in stream for part in ("yuv420p", "32x24", "12.50 fps")] == [True] * 3, stream
    found = np.frombuffer(done.stdout, np.uint8).reshape(3, 24, 32)
    assert found.mean((1, 2)) == pytest.approx([40, 120, 200], abs=4)
    with pytest.raises(ImageError, match=r"/film\.mp4: an MP4 needs at least 2 x 2 pixels, not 33 x 1"):
        write_animation(tmp_path / "film.mp4", frames(height=1))
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_large_frames_are_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animation, "LONGEST", 20)
    assert write_animation(tmp_path / "film.gif", frames(30, 40)) == (20, 15)


def test_what_cannot_be_written_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=re.escape("film.avi: an animation ends in .gif, .png, .apng or .mp4")):
        write_animation(tmp_path / "film.avi", frames())
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImageError, match=re.escape("MP4 needs imageio-ffmpeg: pip install 'evofool[video]'")):
        write_animation(tmp_path / "film.mp4", frames())
    assert not list(tmp_path.iterdir())
