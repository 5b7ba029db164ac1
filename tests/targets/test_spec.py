"""The grammar of target specs, and the error messages for invalid ones."""

from pathlib import Path

import pytest

from evofool.errors import TargetError
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import distinct
from evofool.targets.spec import parse as spec


@pytest.mark.parametrize(
    ("text", "kind", "name", "options"),
    [
        ("lenet", "lenet", "", {}),
        (" efficientnet-lite0 ", "efficientnet-lite0", "", {}),
        ("torchvision:resnet50", "torchvision", "resnet50", {}),
        ("timm:resnet50.a1_in1k?size=288", "timm", "resnet50.a1_in1k", {"size": "288"}),
        ("python:a.b:make", "python", "a.b:make", {}),
        ("onnx:/x/y.onnx?sha256=ab&threads=2", "onnx", "/x/y.onnx", {"sha256": "ab", "threads": "2"}),
        ("lenet?weights=/a%20b%26c+d", "lenet", "", {"weights": "/a b&c+d"}),
        ("torchvision:x?weights=random", "torchvision", "x", {"weights": "random"}),
        ("http://host/p?key=1&timeout=3", "http", "http://host/p?key=1", {"timeout": "3"}),
    ],
)
def test_a_spec_is_a_kind_a_name_and_options(text: str, kind: str, name: str, options: dict[str, str]) -> None:
    found = spec(text)
    assert (found.kind, found.name, found.options) == (kind, name, options)


@pytest.mark.parametrize(
    "text",
    [
        "lenet",
        "lenet?weights=a b%26c+d%25é#;=?.safetensors&mean=0.5&order=BGR",
        "torchvision:resnet50?weights=~/w.pth&labels=names.txt",
        "onnx:some/net.onnx?output=a/b:0",
        "https://host:99/p/q?a=%2F&b&size=32x48&mean=1,2,3",
    ],
)
def test_the_canonical_spec_reads_back_as_itself(text: str) -> None:
    assert spec(spec(text).text) == spec(text)


def test_files_in_a_canonical_spec_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert spec("onnx:net.onnx").name == str(tmp_path / "net.onnx")
    assert spec("lenet?weights=w.safetensors&labels=l.txt").options == {
        "weights": str(tmp_path / "w.safetensors"),
        "labels": str(tmp_path / "l.txt"),
    }
    assert spec("lenet?weights=~/w").options["weights"] == str(Path.home() / "w")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("torchvison:resnet50", 'no target is called "torchvison".* did you mean "torchvision"'),
        ("lenet?size=28&size=30", "lenet: an option is given twice in size=28&size=30"),
        ("guarded:/a.safetensors?size=3", "guarded:/a.safetensors: takes no options but through"),
        ("http://host/p?timout=3", 'no option "timout"; did you mean "timeout"'),
    ],
)
def test_an_invalid_spec_is_refused(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        spec(text)


def test_an_option_that_a_kind_does_not_take_is_named_with_the_nearest() -> None:
    with pytest.raises(TargetError, match='lenet: no option "wights"; did you mean "weights"'):
        spec("lenet?wights=1")
    with pytest.raises(TargetError, match='lenet: no option "qqq"; there are weights, sha256, size, '):
        spec("lenet?qqq=1")


def test_sizes_are_one_side_or_height_by_width() -> None:
    assert spec("lenet?size=28").side() == (28, 28)
    assert spec("lenet?size=30x40").side((1, 1)) == (30, 40)
    assert spec("lenet").side((5, 6)) == (5, 6)
    with pytest.raises(TargetError, match="the size of its images is not known; give size=224"):
        spec("lenet").side()
    for wrong in ("0", "-1", "1x2x3", "x", "", "3.5", "99999"):
        with pytest.raises(TargetError, match="it has to be pixels, 224 or HEIGHTxWIDTH"):
            spec(f"lenet?size={wrong}").side()


def test_options_override_the_default_preprocessing() -> None:
    default = Preprocessing(mean=(0.1,), std=(0.2,), resize=99, interpolation="bicubic")
    assert spec("lenet").preprocessing(default, (28, 28)) == (default, (28, 28))
    made, size = spec("lenet?mean=1,2.5,3&std=1/4&scale=1&order=bgr&resize=squeeze&interpolation=nearest").preprocessing(
        default, (28, 30)
    )
    assert made == Preprocessing(1.0, (1.0, 2.5, 3.0), (0.25,), "BGR", interpolation="nearest")
    assert size == (28, 30)


def test_crops_are_cut_out_of_larger_images() -> None:
    made, size = spec("lenet?crops=10&resize=40").preprocessing(Preprocessing(), (28, 30))
    assert (made.crops, made.crop, size) == (10, (28, 30), (40, 40))
    assert spec("lenet?crops=5").preprocessing(Preprocessing(), (28, 28))[1] == (256, 256)
    with pytest.raises(TargetError, match=r"crops of 28x28 do not fit into 20x20; give resize=28"):
        spec("lenet?crops=10&resize=20").preprocessing(Preprocessing(), (28, 28))
    with pytest.raises(TargetError, match=r"crops of 5000x28 do not fit into 256x256; give a size of at most 4,096"):
        spec("lenet?crops=10").preprocessing(Preprocessing(), (5000, 28))
    assert spec("lenet?resize=4096").preprocessing(Preprocessing(), (28, 28))[0].resize == 4096


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("mean=a", 'mean is "a"; it has to be a number, or up to 3 separated by commas'),
        ("mean=1,2,3,4", "mean is"), ("std=1/0", "std is"), ("scale=1,2", "scale is"), ("scale=1/2/3", "scale is"),
        ("scale=", "scale is"), ("std=0", "have to be > 0"), ("mean=nan", "finite"), ("scale=inf", "finite"),
        ("order=GBR", "neither RGB nor BGR"), ("crops=3", "crops are 1"), ("crops=ten", 'crops is "ten"; it has'),
        ("resize=0", 'resize is "0"; it has to be a whole number, from 1 to 4,096'),
        ("resize=4097", 'resize is "4097"; it has'),
        ("interpolation=cubic", '"cubic" is none of nearest, bilinear, bicubic, lanczos'),
        ("mean=1,2,3&std=1,2", "one number, or one per channel"),
    ],
)  # fmt: skip
def test_invalid_preprocessing_names_the_target_and_the_option(option: str, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        spec(f"lenet?{option}").preprocessing(Preprocessing(), (28, 28))
    assert str(caught.value).startswith("lenet: ")


def test_labels_come_from_the_file_s_lines(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("crane\n\n  eel \ncrane\nübel\n", encoding="utf-8")
    assert spec(f"lenet?labels={file}").labels(["x"]) == ["crane [0]", "eel", "crane [2]", "übel"]
    assert spec("lenet").labels(["x", "y"]) == ["x", "y"]
    assert spec("lenet").labels() is None
    file.write_bytes(b"\xff\xfe\xff")
    for wrong in (file, tmp_path, tmp_path / "none"):
        with pytest.raises(TargetError, match=r"lenet: the labels' file .* cannot be read"):
            spec(f"lenet?labels={wrong}").labels()


def test_duplicate_labels_get_their_class_number() -> None:
    assert distinct(["a", "b", "a"]) == ["a [0]", "b", "a [2]"]
    assert len(set(distinct(["same"] * 20_000))) == 20_000


def test_a_missing_device_is_refused() -> None:
    assert spec("lenet?device=cpu").device == "cpu"
    for wrong in ("banana", "cuda:77", ""):
        with pytest.raises(TargetError, match="lenet: there is no device"):
            spec(f"lenet?device={wrong}").device  # noqa: B018


def test_keys_of_a_server_that_resemble_options_are_sent_if_they_are_escaped() -> None:
    with pytest.raises(
        TargetError, match=r'sizes=\.\.\.: no option "sizes"; did you mean "size"\? .* write %73izes=\.\.\.$'
    ):
        spec("http://host/p?sizes=3")
    found = spec("http://host/p?%73izes=3&timeout=5&%73ize=9&kind=a")
    assert (found.name, found.options) == ("http://host/p?%73izes=3&%73ize=9&kind=a", {"timeout": "5"})


@pytest.mark.parametrize(
    ("url", "key", "whose"),
    [
        ("mlflow+http://host/invocations", "input", "kserve"),
        ("mlflow+http://host/invocations", "answer", "http"),
        ("kserve://host/v2/models/m", "request", "http"),
        ("http://host/p", "layout", "kserve.* and mlflow"),
    ],
)
def test_options_of_other_servers_are_not_sent_unless_they_are_escaped(url: str, key: str, whose: str) -> None:
    escaped = f"%{ord(key[0]):02X}{key[1:]}"
    with pytest.raises(
        TargetError, match=rf'\?{key}=\.\.\.: no option "{key}"; it is one of {whose}.*, write {escaped}=\.\.\.$'
    ):
        spec(f"{url}?{key}=x")
    assert spec(f"{url}?{escaped}=x").options == {}


def test_errors_show_no_value_that_is_sent_to_a_server() -> None:
    with pytest.raises(TargetError, match=r"^http://host/p\?key=\.\.\.: size is "):
        spec("http://host/p?key=abc&size=0").side()


def test_a_flag_that_is_neither_yes_nor_no_is_named_once() -> None:
    with pytest.raises(TargetError, match=r'^lenet: invert is "maybe"; it has to be yes or no$'):
        spec("lenet?invert=maybe").preprocessing(Preprocessing(), (28, 28))
