"""Published weights, through the public door, without a network.

Files of the authors' names and layouts are written here, filled by the rule
of `test_oracles.parameter`; what is loaded from them must give the answers
that the authors' own code gave with the same numbers.
"""

import hashlib
import http.client
import io
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import handmade as hand
import keras
import numpy as np
import pytest
import tensorflow as tf
from test_oracles import (
    input_by_rule,
    ORACLES,
    parameter,
    read,
    TOLERANCE,
)

from keras_videofusion import applications
from keras_videofusion.applications import labels, releases, weights
from keras_videofusion.applications.inception import TABLE
from keras_videofusion.applications.releases import RELEASES

CLIP = (16, 64, 64, 3)
LOGITS = {"include_preprocessing": False, "classifier_activation": None}

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def home(request, tmp_path, monkeypatch):
    """Our part of Keras's folder, not yet made; the internet is not there."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    if request.node.get_closest_marker("network") is None:
        monkeypatch.delenv("KVF_WEIGHTS_DIR", raising=False)
        monkeypatch.setattr(urllib.request, "urlopen", no_internet)
    return tmp_path / "keras" / "models" / "keras_videofusion"


def no_internet(address, timeout):
    raise urllib.error.URLError("no route to host")


# Files as their authors write them


def torchvision_state():
    """All that torchvision's S3D keeps, by the rule."""
    held = {}

    def keep(name, kind, shape):
        held[name] = parameter(name, kind, shape)

    def unit(at, out, into, *taps):
        keep(f"{at}.0.weight", "kernel", (out, into, *taps))
        keep(f"{at}.1.weight", "gamma", (out,))
        keep(f"{at}.1.bias", "beta", (out,))
        keep(f"{at}.1.running_mean", "moving_mean", (out,))
        keep(f"{at}.1.running_var", "moving_variance", (out,))
        held[f"{at}.1.num_batches_tracked"] = np.array(7, "int64")

    def apart(at, out, into, side):
        unit(f"{at}.0", out, into, 1, side, side)
        unit(f"{at}.1", out, out, side, 1, 1)

    apart("features.0", 64, 3, 7)
    unit("features.2", 64, 64, 1, 1, 1)
    apart("features.3", 192, 64, 3)
    into = 192
    places = (5, 6, 8, 9, 10, 11, 12, 14, 15)
    for place, row in zip(places, TABLE.values(), strict=True):
        b0, b1a, b1b, b2a, b2b, b3 = row
        at = f"features.{place}.branch"
        unit(f"{at}0", b0, into, 1, 1, 1)
        unit(f"{at}1.0", b1a, into, 1, 1, 1)
        apart(f"{at}1.1", b1b, b1a, 3)
        unit(f"{at}2.0", b2a, into, 1, 1, 1)
        apart(f"{at}2.1", b2b, b2a, 3)
        unit(f"{at}3.1", b3, into, 1, 1, 1)
        into = b0 + b1b + b2b + b3
    keep("classifier.1.weight", "kernel", (400, 1024, 1, 1, 1))
    keep("classifier.1.bias", "bias", (400,))
    return held


def deepmind_state(channels=3, classes=400):
    """All that DeepMind's I3D keeps, by the rule, without a prefix."""
    held = {}

    def conv(name, out, into, taps):
        value = parameter(name, "kernel", (out, into, *taps))
        held[name] = value.transpose(2, 3, 4, 1, 0)

    def unit(at, out, into, side):
        conv(f"{at}/conv_3d/w", out, into, (side, side, side))
        for kind in ("beta", "moving_mean", "moving_variance"):
            name = f"{at}/batch_norm/{kind}"
            held[name] = parameter(name, kind, (out,)).reshape(1, 1, 1, 1, -1)

    unit("Conv3d_1a_7x7", 64, channels, 7)
    unit("Conv3d_2b_1x1", 64, 64, 1)
    unit("Conv3d_2c_3x3", 192, 64, 3)
    into = 192
    for site, (b0, b1a, b1b, b2a, b2b, b3) in TABLE.items():
        at = f"{site.replace('mixed', 'Mixed')}/Branch_"
        slip = "0a" if site == "mixed_5b" else "0b"
        unit(f"{at}0/Conv3d_0a_1x1", b0, into, 1)
        unit(f"{at}1/Conv3d_0a_1x1", b1a, into, 1)
        unit(f"{at}1/Conv3d_0b_3x3", b1b, b1a, 3)
        unit(f"{at}2/Conv3d_0a_1x1", b2a, into, 1)
        unit(f"{at}2/Conv3d_{slip}_3x3", b2b, b2a, 3)
        unit(f"{at}3/Conv3d_0b_1x1", b3, into, 1)
        into = b0 + b1b + b2b + b3
    head = "Logits/Conv3d_0c_1x1/conv_3d/"
    conv(f"{head}w", classes, 1024, (1, 1, 1))
    held[f"{head}b"] = parameter(f"{head}b", "bias", (classes,))
    return held


def openmmlab_state():
    """All that OpenMMLab's C3D for UCF-101 keeps, by the rule."""
    shapes = {}
    into = 3
    for name, out in (
        ("1a", 64),
        ("2a", 128),
        ("3a", 256),
        ("3b", 256),
        ("4a", 512),
        ("4b", 512),
        ("5a", 512),
        ("5b", 512),
    ):
        shapes[f"backbone.conv{name}.conv"] = (out, into, 3, 3, 3)
        into = out
    shapes["backbone.fc6"] = (4096, 8192)
    shapes["backbone.fc7"] = (4096, 4096)
    shapes["fc_cls"] = (101, 4096)
    held = {}
    for name, shape in shapes.items():
        # The rule knows the classifier without the part that it belongs to.
        at = name.replace("fc_cls", "cls_head.fc_cls")
        held[f"{at}.weight"] = parameter(f"{name}.weight", "kernel", shape)
        held[f"{at}.bias"] = parameter(f"{name}.bias", "bias", shape[:1])
    return held


def write_archive(path, held):
    value, storages = hand.state(held)
    hand.archive(path, hand.pickled(value), storages)


def write_by_torch(path, held):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save({k: torch.from_numpy(x) for k, x in held.items()}, path)


def write_stream(path, held):
    """The older layout, with `meta` beside the state."""
    value, storages = hand.state(held, view=b"N")
    counts = [array.size for array in held.values()]
    meta = hand.mapping({"epoch": hand.number(45), "cfg": hand.text("x = 1")})
    hand.stream(
        path,
        hand.mapping({"meta": meta, "state_dict": value}),
        {
            key: (count, data)
            for count, (key, data) in zip(counts, storages.items(), strict=True)
        },
    )


def write_checkpoint(folder, held, prefix=""):
    """`folder/model.ckpt.*`, as TensorFlow's saver writes it."""
    folder.mkdir(parents=True)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "model.ckpt"),
        tensor_names=[f"{prefix}{name}" for name in held],
        shape_and_slices=[""] * len(held),
        tensors=[tf.constant(value) for value in held.values()],
    )


def digest(path, kind):
    data = path.read_bytes()
    if kind == "git":
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return hashlib.sha256(data).hexdigest()[:8]


def accept(monkeypatch, key, folder):
    """Puts the hashes of files that we wrote in place of their authors'."""
    row = RELEASES[key]
    files = []
    for file in row.files:
        kind = file.digest.partition(":")[0]
        own = f"{kind}:{digest(folder / file.path, kind)}" if kind else ""
        files.append(replace(file, digest=own))
    monkeypatch.setitem(RELEASES, key, replace(row, files=tuple(files)))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of all files that this module reads; change nothing in it."""
    folder = tmp_path_factory.mktemp("published")
    write_archive(folder / "s3d-d76dad2f.pth", torchvision_state())
    rgb, flow = deepmind_state(), deepmind_state(channels=2)
    # Their code restores vectors of either shape.
    flow = {
        name: value.reshape(-1) if "batch_norm" in name else value
        for name, value in flow.items()
    }
    write_checkpoint(folder / "rgb_imagenet", rgb, "RGB/inception_i3d/")
    write_checkpoint(folder / "flow_imagenet", flow, "Flow/inception_i3d/")
    large = deepmind_state(classes=600)
    # As DeepMind's third has them.
    slots = {f"{name}/Momentum": value for name, value in large.items()}
    counter = {"global_step": np.array(3, "int64")}
    write_checkpoint(folder / "rgb_scratch_kin600", large | slots | counter)
    return folder


@pytest.fixture
def published(written, monkeypatch):
    """The same, named in KVF_WEIGHTS_DIR, and of accepted hashes."""
    for key in (
        ("s3d", "kinetics400"),
        ("i3d", "kinetics400"),
        ("i3d", "kinetics600"),
        ("i3d_flow", "kinetics400"),
    ):
        accept(monkeypatch, key, written)
    monkeypatch.setenv("KVF_WEIGHTS_DIR", str(written))
    return written


def s3d(**arguments):
    return applications.S3D(
        weights="kinetics400",
        kernel_initializer="zeros",
        **{"input_shape": CLIP, **LOGITS, **arguments},
    )


def i3d(weights="kinetics400", **arguments):
    return applications.I3D(
        weights=weights,
        kernel_initializer="zeros",
        **{"input_shape": CLIP, **LOGITS, **arguments},
    )


def oracle(stem):
    """Input and logits of a peer; all or the first three of them."""
    (row,) = (row for row in ORACLES if row.stem == stem)
    file = read(stem)
    if file is None:
        return input_by_rule(stem, row.shape), np.array([row.begins])
    return file["input"].astype("float32"), file["logits"]


def expect_oracle(model, stem):
    clip, wanted = oracle(stem)
    (largest,) = (row.largest for row in ORACLES if row.stem == stem)

    logits = np.asarray(model(clip))

    far = np.abs(logits[:, : wanted.shape[-1]] - wanted).max() / largest
    print(f"{stem}: {far:.1e} of the largest logit")
    assert far <= TOLERANCE


def numbers(model):
    return [np.asarray(weight) for weight in model.weights]


def expect_equal(one, other):
    assert len(one.weights) == len(other.weights)
    for x, y in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_array_equal(x, y)


# What is loaded


def test_s3d_answers_as_torchvisions(published):
    expect_oracle(s3d(), "torchvision_s3d_16x64x64")


def test_s3d_reads_what_torch_writes(published, tmp_path, monkeypatch):
    path = tmp_path / "s3d-d76dad2f.pth"
    write_by_torch(path, torchvision_state())
    accept(monkeypatch, ("s3d", "kinetics400"), tmp_path)
    monkeypatch.setenv("KVF_WEIGHTS_DIR", str(tmp_path))

    expect_oracle(s3d(), "torchvision_s3d_16x64x64")


def test_i3d_answers_as_deepminds(published):
    expect_oracle(i3d(), "deepmind_i3d_rgb_16x64x64")


def test_i3d_of_flow_answers_as_deepminds(published):
    model = i3d(input_shape=(16, 64, 64, 2), modality="flow")

    expect_oracle(model, "deepmind_i3d_flow_16x64x64")


def test_two_streams_add_the_logits_of_both(published):
    rgb, first = oracle("deepmind_i3d_rgb_16x64x64")
    flow, second = oracle("deepmind_i3d_flow_16x64x64")
    model = applications.TwoStreamI3D(
        weights="kinetics400",
        input_shape={"rgb": CLIP, "flow": (16, 64, 64, 2)},
        **LOGITS,
    )

    logits = np.asarray(model({"rgb": rgb, "flow": flow}))

    wanted = first + second
    far = np.abs(logits[:, : wanted.shape[-1]] - wanted).max()
    assert far <= TOLERANCE * np.abs(wanted).max()


def test_six_hundred_classes_come_without_prefix_and_with_slots(published):
    model = i3d(weights="kinetics600")

    state = deepmind_state(classes=600)
    head = state["Logits/Conv3d_0c_1x1/conv_3d/w"][0, 0, 0]
    slip = state["Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w"]
    np.testing.assert_array_equal(model.get_layer("logits").kernel, head)
    np.testing.assert_array_equal(model.get_layer("mixed_5b_b2b").kernel, slip)


@pytest.fixture(scope="module")
def c3d_state():
    return openmmlab_state()


def publish_c3d(monkeypatch, tmp_path, name, write, held):
    (file,) = RELEASES["c3d", name].files
    write(tmp_path / file.path, held)
    accept(monkeypatch, ("c3d", name), tmp_path)
    monkeypatch.setenv("KVF_WEIGHTS_DIR", str(tmp_path))


def test_c3d_answers_as_openmmlabs(c3d_state, tmp_path, monkeypatch):
    publish_c3d(monkeypatch, tmp_path, "ucf101", write_stream, c3d_state)

    model = applications.C3D(
        weights="ucf101", kernel_initializer="zeros", **LOGITS
    )

    expect_oracle(model, "mmaction2_c3d_16x112x112")


@pytest.mark.parametrize("above", [(), ("fc6", "fc7")])
def test_c3d_of_sports1m_is_a_backbone(c3d_state, tmp_path, monkeypatch, above):
    held = {
        name.removeprefix("backbone."): value
        for name, value in c3d_state.items()
        if "conv" in name or name.split(".")[1] in above
    }
    publish_c3d(monkeypatch, tmp_path, "sports1m", write_archive, held)

    model = applications.C3D(weights="sports1m", include_top=False)

    value = c3d_state["backbone.conv5b.conv.weight"]
    np.testing.assert_array_equal(
        model.get_layer("conv5b").kernel, value.transpose(2, 3, 4, 1, 0)
    )
    with pytest.raises(ValueError, match="have no top.*include_top=False"):
        applications.C3D(weights="sports1m")


@pytest.mark.parametrize(
    "spelled",
    [
        lambda name: name,
        lambda name: name.replace("cls_head.", ""),
        lambda name: name.replace("cls_head.", "").replace("backbone.", ""),
    ],
    ids=["recognizer", "head_bare", "all_bare"],
)
def test_parameters_may_stand_within_modules_or_not(
    spelled, c3d_state, tmp_path
):
    row = RELEASES["c3d", "ucf101"]
    path = tmp_path / "c3d.pth"
    # One number each: names alone count here.
    held = {spelled(name): x.ravel()[:1] for name, x in c3d_state.items()}
    write_archive(path, held)

    found = releases.arrays(row, [path])

    assert set(found) == {peer.name for peer in row.peers.values()}
    np.testing.assert_array_equal(
        found["fc_cls.bias"], c3d_state["cls_head.fc_cls.bias"][:1]
    )


def test_without_a_top_the_map_is_that_below_it(published):
    clip, _ = oracle("torchvision_s3d_16x64x64")
    whole = s3d()
    below = keras.Model(whole.input, whole.get_layer("avg_pool").input)

    bare = s3d(include_top=False)

    np.testing.assert_array_equal(bare(clip), below(clip))


def test_weights_are_found_in_a_clone_of_deepminds_repository(
    published, tmp_path, monkeypatch
):
    inner = tmp_path / "clone" / "data" / "checkpoints"
    shutil.copytree(published / "rgb_imagenet", inner / "rgb_imagenet")
    monkeypatch.setenv("KVF_WEIGHTS_DIR", str(tmp_path / "clone"))

    expect_oracle(i3d(), "deepmind_i3d_rgb_16x64x64")


def test_weights_are_found_in_keras_folder(published, home, monkeypatch):
    home.mkdir(parents=True)
    shutil.copy(published / "s3d-d76dad2f.pth", home)
    monkeypatch.delenv("KVF_WEIGHTS_DIR")

    expect_oracle(s3d(), "torchvision_s3d_16x64x64")


# The table


def test_addresses_and_hashes_are_the_authors():
    seen = {
        (network, name): [(file.address, file.digest) for file in row.files]
        for (network, name), row in RELEASES.items()
    }
    deepmind = (
        "https://raw.githubusercontent.com/google-deepmind/kinetics-i3d/"
        "master/data/checkpoints/{}/model.ckpt.{}"
    )

    def checkpoint(folder, blob):
        return [
            (deepmind.format(folder, "data-00000-of-00001"), f"git:{blob}"),
            (deepmind.format(folder, "index"), ""),
        ]

    rgb = checkpoint("rgb_imagenet", "2958652e0c9c48a65010c0ebda5c9cfd4edc7c18")
    flow = checkpoint(
        "flow_imagenet", "bf56831f663abc3de0d35f193030b73a3df7fb61"
    )
    rgb_scratch = checkpoint(
        "rgb_scratch", "fa7df95674dbf3579e7fccd954e51e706b4734c1"
    )
    flow_scratch = checkpoint(
        "flow_scratch", "1d6a0b68f32544af11111342857e47e30d13afa9"
    )
    mmlab = "https://download.openmmlab.com/mmaction/"
    assert seen == {
        ("s3d", "kinetics400"): [
            (
                "https://download.pytorch.org/models/s3d-d76dad2f.pth",
                "sha256:d76dad2f",
            )
        ],
        ("i3d", "kinetics400"): rgb,
        ("i3d", "kinetics400_scratch"): rgb_scratch,
        ("i3d", "kinetics600"): checkpoint(
            "rgb_scratch_kin600", "6392a74c3180e706cabada39d8f40a50a48642e5"
        ),
        ("i3d_flow", "kinetics400"): flow,
        ("i3d_flow", "kinetics400_scratch"): flow_scratch,
        ("two_stream_i3d", "kinetics400"): rgb + flow,
        ("two_stream_i3d", "kinetics400_scratch"): rgb_scratch + flow_scratch,
        ("c3d", "ucf101"): [
            (
                f"{mmlab}v1.0/recognition/c3d/"
                "c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb/"
                "c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb_"
                "20220811-31723200.pth",
                "sha256:31723200",
            )
        ],
        ("c3d", "sports1m"): [
            (
                f"{mmlab}recognition/c3d/"
                "c3d_sports1m_pretrain_20201016-dcc47ddc.pth",
                "sha256:dcc47ddc",
            )
        ],
    }


@pytest.mark.parametrize("key", RELEASES, ids="-".join)
def test_every_row_agrees_with_its_network_and_its_names(key):
    row = RELEASES[key]

    assert (row.network, row.name) == key
    assert row.name in weights.WEIGHTS[row.network]
    names = labels.class_names(row.labels)
    assert row.classes in (None, len(names))
    assert len({peer.name for peer in row.peers.values()}) == len(row.peers)
    replace(applications.clip_spec(row.network), **row.clip)


def test_the_rows_count_the_parameters_that_are_published():
    shapes = {
        "s3d": torchvision_state(),
        "i3d": deepmind_state(),
    }

    assert sum(
        value.size
        for name, value in shapes["s3d"].items()
        if "running" not in name and "tracked" not in name
    ) == 8_320_048  # fmt: skip
    assert sum(
        value.size
        for name, value in shapes["i3d"].items()
        if "moving" not in name
    ) == 12_689_984  # fmt: skip


def test_paths_and_none_are_no_releases(tmp_path):
    for given in (None, tmp_path, "own.weights.h5", "sports1m"):
        assert weights.release("s3d", given) is None
    assert weights.release("s3d", "kinetics400").classes == 400


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: applications.S3D(weights="kinetics400", classes=7),
            "`classes` must match the weights: 'kinetics400' was trained on "
            "400 classes.*include_top=False.*classes=7",
        ),
        (
            lambda: applications.C3D(weights="ucf101", classes=7),
            "trained on 101 classes.*classes=7",
        ),
        (
            lambda: applications.I3D(weights="sports1m"),
            "`None`.*'kinetics400', 'kinetics400_scratch', 'kinetics600', or "
            "the path.*weights='sports1m'",
        ),
        (
            lambda: applications.I3D(weights="kinetics600", modality="flow"),
            "'kinetics400', 'kinetics400_scratch', or the path",
        ),
        (
            lambda: applications.S3DG(weights="kinetics400"),
            "Nobody has published weights of s3dg",
        ),
        (
            lambda: applications.S3D(weights="kinetics400", style="slim"),
            "need style='torchvision'.*style='slim'",
        ),
    ],
)
def test_weights_that_do_not_exist_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# Hashes


def test_files_of_another_hash_are_refused_and_left_alone(
    written, tmp_path, monkeypatch
):
    path = tmp_path / "s3d-d76dad2f.pth"
    path.write_bytes(b"something else")
    monkeypatch.setenv("KVF_WEIGHTS_DIR", str(tmp_path))
    received = hashlib.sha256(b"something else").hexdigest()[:8]

    with pytest.raises(ValueError, match="must begin with d76dad2f") as caught:
        s3d()

    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(f"Received: {received}")
    assert path.read_bytes() == b"something else"


def test_checkpoints_are_known_by_the_hash_that_git_gives_them(
    published, tmp_path, monkeypatch
):
    shutil.copytree(published / "rgb_imagenet", tmp_path / "rgb_imagenet")
    path = tmp_path / "rgb_imagenet" / "model.ckpt.data-00000-of-00001"
    with open(path, "r+b") as file:
        file.seek(1000)
        file.write(b"\xff")
    monkeypatch.setenv("KVF_WEIGHTS_DIR", str(tmp_path))

    with pytest.raises(ValueError, match=r"data-00000.*hash \(git\) must"):
        i3d()


def test_hashes_are_those_of_sha256_and_git(tmp_path):
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")

    # What `sha256sum` and `git hash-object` print.
    weights._check_digest(path, "sha256:5891b5b5")
    weights._check_digest(path, "git:ce013625030ba8dba906f756967f9e9ca394464a")
    with pytest.raises(ValueError, match="must begin with 5891b5b6"):
        weights._check_digest(path, "sha256:5891b5b6")


# Fetching


@dataclass
class Answer:
    """What an address answers: `length` is claimed, `content` sent."""

    content: bytes
    length: int
    error: BaseException | None = None

    def __enter__(self):
        self.headers = {"Content-Length": str(self.length)}
        self.left = io.BytesIO(self.content)
        return self

    def __exit__(self, *_):
        pass

    def read(self, size):
        part = self.left.read(size)
        if not part and self.error is not None:
            raise self.error
        return part


def serve(monkeypatch, folder):
    """The internet, with the files of a folder.

    Returns:
        List that gathers the addresses asked for.
    """
    asked = []

    def urlopen(address, timeout):
        assert 0 < timeout < 120
        asked.append(address)
        (path,) = (
            file.path
            for row in RELEASES.values()
            for file in row.files
            if file.address == address and row.network != "two_stream_i3d"
        )
        content = (folder / path).read_bytes()
        return Answer(content, len(content))

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def files_in(folder):
    if not folder.exists():
        return []
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    )


def test_what_is_nowhere_is_fetched_once(published, home, monkeypatch, capfd):
    monkeypatch.delenv("KVF_WEIGHTS_DIR")
    asked = serve(monkeypatch, published)

    expect_oracle(s3d(), "torchvision_s3d_16x64x64")

    assert asked == ["https://download.pytorch.org/models/s3d-d76dad2f.pth"]
    # Standard output is for results.
    out, err = capfd.readouterr()
    assert "Fetching https://download.pytorch.org/models/s3d-d76dad2f" in err
    assert "Fetching" not in out
    assert (home / "s3d-d76dad2f.pth").is_file()
    for path in home.glob("*.weights.h5"):
        path.unlink()
    expect_oracle(s3d(), "torchvision_s3d_16x64x64")
    assert len(asked) == 1


def test_checkpoints_are_fetched_whole(published, home, monkeypatch):
    monkeypatch.delenv("KVF_WEIGHTS_DIR")
    asked = serve(monkeypatch, published)

    expect_oracle(i3d(), "deepmind_i3d_rgb_16x64x64")

    assert [Path(address).name for address in asked] == [
        "model.ckpt.data-00000-of-00001",
        "model.ckpt.index",
    ]
    assert [name for name in files_in(home) if "rgb" in name] == [
        "rgb_imagenet/model.ckpt.data-00000-of-00001",
        "rgb_imagenet/model.ckpt.index",
    ]


def test_wrong_downloads_are_removed(published, home, tmp_path, monkeypatch):
    monkeypatch.delenv("KVF_WEIGHTS_DIR")
    other = tmp_path / "other"
    other.mkdir()
    (other / "s3d-d76dad2f.pth").write_bytes(b"<html>")
    serve(monkeypatch, other)

    with pytest.raises(ValueError, match="damaged or another file"):
        s3d()

    assert files_in(home) == []


def test_an_index_that_cannot_be_read_is_removed(
    published, home, tmp_path, monkeypatch
):
    monkeypatch.delenv("KVF_WEIGHTS_DIR")
    other = tmp_path / "other" / "rgb_imagenet"
    shutil.copytree(published / "rgb_imagenet", other)
    (other / "model.ckpt.index").write_bytes(b"<html>" * 20)
    serve(monkeypatch, other.parent)

    with pytest.raises(ValueError, match="as a TensorFlow checkpoint") as it:
        i3d()

    assert "\n" not in str(it.value)
    assert files_in(home) == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyboardInterrupt(), None),
        (ConnectionResetError("reset by peer"), "reset by peer"),
        (http.client.IncompleteRead(b"half"), "IncompleteRead"),
        (None, "ended after 4 of 8 bytes"),
    ],
    ids=["by_hand", "reset", "incomplete", "ended"],
)
def test_broken_off_downloads_leave_nothing(home, monkeypatch, error, told):
    monkeypatch.setattr(
        urllib.request, "urlopen", lambda *_, **__: Answer(b"half", 8, error)
    )

    with pytest.raises((KeyboardInterrupt, FileNotFoundError), match=told):
        s3d()

    assert home.is_dir()
    assert files_in(home) == []


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    ("build", "row"),
    [
        (s3d, ("s3d", "kinetics400")),
        (i3d, ("i3d", "kinetics400")),
        (
            lambda: applications.C3D(weights="sports1m", include_top=False),
            ("c3d", "sports1m"),
        ),
    ],
)
def test_offline_one_line_says_what_to_put_where(
    tmp_path, home, monkeypatch, capfd, build, row, asked
):
    if asked:
        monkeypatch.setenv("KVF_WEIGHTS_DIR", str(tmp_path))

    with pytest.raises(FileNotFoundError, match="no route") as caught:
        build()

    line = str(caught.value)
    assert "\n" not in line
    assert "Fetching" not in "".join(capfd.readouterr())
    assert "KVF_WEIGHTS_DIR" in line
    assert (str(tmp_path) + "; or" in line) == asked
    assert line.endswith(str(home))
    for file in RELEASES[row].files:
        assert f"{file.address} as {file.path}" in line


# What is kept


def kept(home):
    return [name for name in files_in(home) if name.endswith(".weights.h5")]


def test_what_was_converted_is_kept_and_needs_no_source(
    published, home, tmp_path, monkeypatch
):
    first = s3d()
    (name,) = kept(home)
    digits = digest(published / "s3d-d76dad2f.pth", "sha256")
    assert name == f"s3d-kinetics400-v{releases.VERSION}-{digits}.weights.h5"
    monkeypatch.delenv("KVF_WEIGHTS_DIR")

    def unread(*_):
        raise AssertionError("the source was read")

    monkeypatch.setattr(releases, "arrays", unread)

    expect_equal(s3d(), first)
    monkeypatch.undo()
    path = home / name
    expect_equal(
        applications.S3D(
            weights=path,
            style="torchvision",
            grid="torch",
            input_shape=CLIP,
            **LOGITS,
        ),
        first,
    )


def test_networks_without_a_top_keep_their_own(published, home):
    s3d(include_top=False)

    (name,) = kept(home)
    assert "-notop-" in name
    expect_oracle(s3d(), "torchvision_s3d_16x64x64")
    assert len(kept(home)) == 2


@pytest.mark.parametrize("damage", ["flipped", "short", "other", "unsigned"])
def test_what_is_kept_damaged_is_converted_anew(published, home, damage):
    first = s3d()
    (name,) = kept(home)
    path = home / name
    whole = path.read_bytes()
    if damage == "flipped":
        # Amid the numbers of a convolution.
        value = np.asarray(first.get_layer("mixed_5c_b0").kernel).tobytes()
        at = whole.index(value[:64]) + 40
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :])
    elif damage == "short":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "other":
        path.write_bytes(b"nothing of the kind")
    else:
        first.save_weights(path)

    expect_equal(s3d(), first)

    assert kept(home) == [name]
    assert weights._load_kept(s3d(), path)


def test_a_newer_conversion_does_not_take_the_older(
    published, home, monkeypatch
):
    s3d()
    monkeypatch.setattr(releases, "VERSION", releases.VERSION + 1)

    s3d()

    assert len(kept(home)) == 2


def test_another_source_does_not_take_what_is_kept(
    published, home, tmp_path, monkeypatch
):
    first = s3d()
    held = torchvision_state()
    held["classifier.1.bias"] = held["classifier.1.bias"] + 1
    write_archive(tmp_path / "s3d-d76dad2f.pth", held)
    accept(monkeypatch, ("s3d", "kinetics400"), tmp_path)
    monkeypatch.setenv("KVF_WEIGHTS_DIR", str(tmp_path))

    second = s3d()

    np.testing.assert_allclose(
        np.asarray(second.get_layer("logits").bias),
        np.asarray(first.get_layer("logits").bias) + 1,
        rtol=1e-6,
    )


def test_networks_upon_other_layers_load_and_keep_nothing(published, home):
    given = keras.Input(CLIP, name="given")
    # Of the class, and as many numbers, as the network's own first.
    before = keras.layers.Conv3D(3, 1, kernel_initializer="ones", name="before")
    tensor = before(given)

    model = s3d(input_tensor=tensor, input_shape=None)

    assert kept(home) == []
    np.testing.assert_array_equal(before.kernel, 1)
    expect_equal(keras.Model(tensor, model.output), s3d())


def test_a_folder_that_cannot_be_written_does_no_harm(
    published, home, monkeypatch
):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(weights, "_keep", full)

    expect_oracle(s3d(), "torchvision_s3d_16x64x64")


# What is refused


@pytest.fixture
def altered(tmp_path, monkeypatch):
    """Function that publishes a changed S3D."""

    def publish(change):
        held = torchvision_state()
        change(held)
        write_archive(tmp_path / "s3d-d76dad2f.pth", held)
        accept(monkeypatch, ("s3d", "kinetics400"), tmp_path)
        monkeypatch.setenv("KVF_WEIGHTS_DIR", str(tmp_path))

    return publish


def test_missing_parameters_are_named(altered):
    altered(lambda held: held.pop("features.9.branch2.1.0.0.weight"))

    with pytest.raises(
        ValueError, match=r"lacks features\.9\.branch2\.1\.0\.0\.weight and 0"
    ):
        s3d()


def test_unexpected_parameters_are_named(altered):
    altered(lambda held: held.update(extra=np.zeros(3, "float32")))

    with pytest.raises(ValueError, match=r"has extra and 0 more"):
        s3d()


def test_wrong_shapes_are_named(altered):
    def turn(held):
        name = "features.3.0.0.weight"
        held[name] = np.ascontiguousarray(held[name].swapaxes(0, 1))

    altered(turn)

    with pytest.raises(
        ValueError,
        match=r"features\.3\.0\.0\.weight of .* must be of shape "
        r"\(192, 64, 1, 3, 3\), for conv_2c\. "
        r"Received: shape=\(64, 192, 1, 3, 3\)",
    ):
        s3d()


def test_narrow_networks_are_refused(published, home):
    with pytest.raises(ValueError, match=r"must be of shape \(32, "):
        s3d(width=0.5)

    assert kept(home) == []


def test_hostile_files_of_the_right_hash_are_refused(tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    call = hand.name("os", "mkdir") + hand.row(hand.text(str(mark))) + b"R"
    path = tmp_path / "s3d-d76dad2f.pth"
    hand.archive(path, hand.pickled(hand.mapping({"w": call})))
    accept(monkeypatch, ("s3d", "kinetics400"), tmp_path)
    monkeypatch.setenv("KVF_WEIGHTS_DIR", str(tmp_path))

    with pytest.raises(ValueError, match=r"asks for os\.mkdir"):
        s3d()

    assert not mark.exists()


def test_a_network_of_another_build_is_refused(published):
    model = applications.S3D(input_shape=CLIP, **LOGITS)

    with pytest.raises(ValueError, match="gamma of conv_1a_bn, which"):
        weights.load(model, "kinetics400", "s3d")


# The authors' own files


@pytest.fixture
def internet(request):
    if "network" not in request.config.option.markexpr:
        pytest.skip("fetches hundreds of megabytes: ask for -m network")


@pytest.mark.network
@pytest.mark.parametrize(
    ("builder", "arguments"),
    [
        ("S3D", {"weights": "kinetics400"}),
        ("I3D", {"weights": "kinetics400_scratch"}),
        ("I3D", {"weights": "kinetics600"}),
        ("I3D", {"weights": "kinetics400_scratch", "modality": "flow"}),
        ("C3D", {"weights": "ucf101"}),
        ("C3D", {"weights": "sports1m", "include_top": False}),
    ],
)
def test_the_authors_files_load(internet, builder, arguments):
    getattr(applications, builder)(**arguments)


@pytest.mark.network
def test_deepminds_sample_gives_what_they_print(internet, tmp_path):
    clips = {}
    for stream in ("rgb", "flow"):
        name = f"v_CricketShot_g04_c01_{stream}.npy"
        path = keras.utils.get_file(
            name,
            "https://raw.githubusercontent.com/google-deepmind/kinetics-i3d/"
            f"master/data/{name}",
            cache_subdir=str(tmp_path),
        )
        clips[stream] = np.load(path, allow_pickle=False)
    model = applications.TwoStreamI3D(
        weights="kinetics400",
        input_shape={k: x.shape[1:] for k, x in clips.items()},
        **LOGITS,
    )

    logits = np.asarray(model(clips))[0]

    # Their README prints, of both streams.
    names = labels.class_names("kinetics400")
    seen = {
        "norm": np.linalg.norm(logits),
        "playing cricket": logits[names.index("playing cricket")],
        "hurling (sport)": logits[names.index("hurling (sport)")],
    }
    assert seen == pytest.approx(
        {
            "norm": 138.4687,
            "playing cricket": 41.8137,
            "hurling (sport)": 21.4940,
        },
        abs=1e-4,
    )
