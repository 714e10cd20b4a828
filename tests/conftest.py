"""What the tests share: a drawn data set, and the folder of facts."""

import os
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory):
    """moving_shapes, small: 4 classes x (4 + 1 + 2) videos, 64 x 64, 24 frames.

    Read it, change nothing in it.
    """
    from keras_videofusion.datasets import moving_shapes

    folder = tmp_path_factory.mktemp("shapes") / "moving_shapes"
    return moving_shapes.draw(
        folder, train=4, validation=1, test=2, size=(64, 64), frames=24
    )


@pytest.fixture(scope="session")
def shapes_flow(shapes_folder, tmp_path_factory):
    """The optical flow of `shapes_folder`, by dis. Change nothing in it."""
    pytest.importorskip(
        "cv2", reason="needs pip install 'keras-videofusion[flow]'"
    )
    from keras_videofusion.data.flow import compute

    folder = tmp_path_factory.mktemp("shapes_flow")
    assert all(row["ok"] for row in compute(shapes_folder, folder))
    return folder


@pytest.fixture
def shapes(shapes_folder):
    """The catalog of `shapes_folder`."""
    from keras_videofusion.data.catalog import open_catalog

    return open_catalog(shapes_folder)


@pytest.fixture(scope="session")
def shared():
    """The folder of oracles and data that stands beside a developer's clone."""
    beside = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("KVF_SHARED", beside))
    if not folder.is_dir():
        pytest.skip("no shared folder: set KVF_SHARED to it")
    return folder


@pytest.fixture(scope="session")
def ucf101(shapes_folder, tmp_path_factory):
    """UCF-101 as its authors publish it, but for nearly all of its videos."""
    root = tmp_path_factory.mktemp("published")
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    names = ("Archery", "Biking")
    (lists / "classInd.txt").write_text("1 Archery\n2 Biking\n")
    drawn = sorted(shapes_folder.rglob("*.mp4"))
    for name, clip in zip(names, drawn, strict=False):
        (root / "UCF-101" / name).mkdir(parents=True)
        for group in range(1, 4):
            shutil.copy(
                clip, root / f"UCF-101/{name}/v_{name}_g0{group}_c01.mp4"
            )
    for fold in range(1, 4):
        for part in ("train", "test"):
            (lists / f"{part}list0{fold}.txt").write_text(
                "".join(
                    f"{name}/v_{name}_g0{group}_c01.avi"
                    f"{f' {number}' if part == 'train' else ''}\n"
                    for number, name in enumerate(names, 1)
                    for group in range(1, 5)  # the fourth is not there
                    if (group == fold) == (part == "test")
                )
            )
    return root
