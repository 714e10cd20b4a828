"""Copies of real clips are found, and nothing else is taken for one."""

import itertools
import json
import os
import shutil
import sqlite3

import av
import numbered
import numpy as np
import pytest

from keras_videofusion import cli
from keras_videofusion.data import duplicates as room
from keras_videofusion.data.catalog import (
    Catalog,
    open_catalog,
    Video,
    video_paths,
)
from keras_videofusion.data.duplicates import (
    Duplicates,
    duplicates,
    Index,
    Looks,
    merged,
    Pair,
)
from keras_videofusion.data.fingerprints import (
    Fingerprint,
    fingerprint,
    identity,
    MIRROR,
    ORDER,
    Store,
)
from keras_videofusion.data.video import decode, timeline, VideoError

ORIGINALS = (
    "ut-interaction-set1/punch/seq01_0.mp4",
    "ut-interaction-set1/hug/seq04_19.mp4",
    "ut-interaction-set1/point/seq07_39.mp4",
    "ut-interaction-set1/kick/seq10_59.mp4",
    "clips/c3d/v_ApplyEyeMakeup_g01_c01.avi",
    "clips/c3d/v_BaseballPitch_g01_c01.avi",
    "clips/intel-asl-gestures/again.mkv",
    "clips/decord/flipping_a_pancake.mkv",
    "clips/gluoncv/action_basketball_demo.gif",
)
# Frames that a copy is made of at most, to save time.
LONGEST = 100
# Shares of the frames that are cut away at the beginning and at the end.
CUT = (0.27, 0.12)


def write(path, pixels, rate, codec="libx264", **options):
    height, width = pixels.shape[1] // 2 * 2, pixels.shape[2] // 2 * 2
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=round(rate), options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        for frame in pixels[:, :height, :width]:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def cropped(pixels, top=0.05, bottom=0.05, left=0.05, right=0.05):
    height, width = pixels.shape[1:3]
    return pixels[
        :,
        int(top * height) : height - int(bottom * height),
        int(left * width) : width - int(right * width),
    ]


def levels(pixels, gain, more):
    changed = (pixels.astype(np.float32) - 128) * gain + 128 + more
    return changed.clip(0, 255).astype(np.uint8)


def with_logo(pixels):
    """An opaque bar of two colours in a corner: an eighth by a fifth."""
    pixels = pixels.copy()
    height, width = pixels.shape[1:3]
    right = width - width // 20
    bar = pixels[:, height // 20 :, right - width // 5 : right]
    bar[:, : height // 8] = 230, 40, 40
    bar[:, height // 24 : height // 12] = 250
    return pixels


def trimmed(pixels):
    return pixels[cut(len(pixels))]


def cut(frames):
    return slice(int(CUT[0] * frames) + 1, int((1 - CUT[1]) * frames))


FAST = {"preset": "ultrafast"}
# fmt: off
COPIES = {
    "reencoded.mp4": (lambda pixels: pixels, dict(crf="36", **FAST)),
    "reencoded.avi": (lambda pixels: pixels, dict(codec="mpeg4")),
    "rescaled.mp4": (lambda pixels: pixels[:, ::2, ::2], FAST),
    "cropped.mp4": (cropped, FAST),
    "cropped_left.mp4": (lambda p: cropped(p, 0, 0, 0.05, 0), FAST),
    "trimmed.mp4": (trimmed, FAST),
    "brightened.mp4": (lambda pixels: levels(pixels, 1, 30), FAST),
    "contrast.mp4": (lambda pixels: levels(pixels, 1.3, 10), FAST),
    "logo.mp4": (with_logo, FAST),
    "all.mp4": (
        lambda p: with_logo(levels(cropped(trimmed(p)), 1.1, 15)),
        dict(crf="32", **FAST),
    ),
    "mirrored.mp4": (lambda pixels: pixels[:, :, ::-1], FAST),
}
# fmt: on


@pytest.fixture(scope="session")
def tree(shared, tmp_path_factory):
    """All real clips, and copies of some as `copies/NUMBER/KIND`."""
    data = shared / "data"
    if not (data / "clips").is_dir():
        pytest.skip("the shared folder holds no clips")
    folder = tmp_path_factory.mktemp("tree")
    for name in ("clips", "ut-interaction-set1"):
        (folder / name).symlink_to(data / name)
    for number, name in enumerate(ORIGINALS):
        path = data / name
        place = folder / "copies" / str(number)
        place.mkdir(parents=True)
        count = min(len(timeline(path)), LONGEST)
        pixels = decode(path, np.arange(count))
        if count < len(timeline(path)):
            # The copies' source is a shorter film, to save time.
            write(place / "source.mp4", pixels, timeline(path).rate, crf="12")
        for kind, (change, options) in COPIES.items():
            write(place / kind, change(pixels), timeline(path).rate, **options)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A file of fingerprints that the searches of `tree` share."""
    return tmp_path_factory.mktemp("cache") / "looks.db"


@pytest.fixture(scope="session")
def found(tree, cache):
    """What a search of `tree` finds; shares from a twentieth on."""
    return duplicates(tree, threshold=0.05, cache=cache)


def original(name):
    """The number of the clip that a file was made from, or its own name."""
    parts = name.split("/")
    if parts[0] == "copies":
        return int(parts[1])
    return ORIGINALS.index(name) if name in ORIGINALS else name


def pair_of(found, number, kind):
    """The pair of a clip and its copy, the clip being first."""
    copy = f"copies/{number}/{kind}"
    names = {ORIGINALS[number], copy}
    for pair in found.pairs:
        if {pair.one, pair.other} == names:
            sign = 1 if pair.other == copy else -1
            return pair, sign * pair.offset
    return None, None


@pytest.mark.parametrize(
    "kind", [kind for kind in COPIES if kind != "mirrored.mp4"]
)
def test_copies_of_every_kind_are_found(kind, found):
    for number, name in enumerate(ORIGINALS):
        pair, _ = pair_of(found, number, kind)

        assert pair, f"{name}: {kind}"
        # Five changes at once leave half of the frames alike.
        least = 0.4 if kind == "all.mp4" else 0.7
        assert pair.share > least, f"{name}: {kind}"
        assert not pair.mirrored
        assert pair.share == max(pair.share_one, pair.share_other)


@pytest.mark.parametrize("kind", ["trimmed.mp4", "all.mp4", "rescaled.mp4"])
def test_the_offset_of_a_copy_is_right(kind, found, shared):
    for number, name in enumerate(ORIGINALS):
        frames = timeline(shared / "data" / name)
        begin = 0
        if kind in ("trimmed.mp4", "all.mp4"):
            begin = cut(min(len(frames), LONGEST)).start / round(frames.rate)
        _, offset = pair_of(found, number, kind)

        assert offset == pytest.approx(begin, abs=0.1), f"{name}: {kind}"


def test_what_was_cut_away_is_no_share_of_the_longer(found):
    for number in range(len(ORIGINALS)):
        pair, _ = pair_of(found, number, "trimmed.mp4")
        longer = pair.share_one if "copies" in pair.other else pair.share_other

        assert longer <= 0.75


def test_scenes_with_one_background_are_no_copies(found):
    """60 clips of ten scenes, gestures of one person, and what else is there.

    The nearest are two gestures that begin alike: a seventh of the shorter.
    """
    false = [
        pair
        for pair in found.pairs
        if original(pair.one) != original(pair.other)
        # A second of a gesture is like a second of another.
        and not {"all.mp4", "trimmed.mp4"}
        & {os.path.basename(pair.one), os.path.basename(pair.other)}
    ]
    true = [
        pair_of(found, number, kind)[0].share
        for number, kind in itertools.product(range(len(ORIGINALS)), COPIES)
        if kind != "mirrored.mp4"
    ]

    assert max(pair.share for pair in false) < 0.2
    assert min(true) > 2 * max(pair.share for pair in false)
    assert found.compared > len(found.pairs)


def test_sixty_clips_without_copies_give_no_pair(shared, cache, found):
    data = shared / "data" / "ut-interaction-set1"

    alone = duplicates(open_catalog(data), cache=cache)

    assert alone.videos == 60
    assert alone.pairs == ()
    # The index has proposed pairs of one scene: it is their motion that told.
    assert alone.compared > 20


def test_broken_videos_are_skipped_and_named(found, tree):
    (skipped,) = found.skipped

    assert skipped["path"] == "clips/decord/corrupted.mp4"
    assert "Invalid data" in skipped["error"]
    assert found.videos == len(video_paths(tree)) - 1


def test_mirror_images_are_found_when_asked_for(found, tree, cache):
    some = (0, 4, 7)
    kinds = ("cropped.mp4", "mirrored.mp4", "rescaled.mp4")
    rows = tuple(
        Video(f"copies/{number}/{kind}", ("a",))
        for number, kind in itertools.product(some, kinds)
    )

    turned = duplicates(
        Catalog(rows, ("a",), str(tree)), mirrored=True, cache=cache
    )

    assert [
        (os.path.basename(pair.one), os.path.basename(pair.other))
        for pair in turned.pairs
    ] == [*itertools.combinations(kinds, 2)] * len(some)
    for pair in turned.pairs:
        assert pair.mirrored == ("mirrored" in pair.one + pair.other)
        assert pair.share > 0.8
        assert pair.offset == pytest.approx(0, abs=0.1)
    for number in some:
        assert pair_of(found, number, "mirrored.mp4") == (None, None)


# One video


def thumbnails(frames, seed=0):
    """Smooth noise that drifts, as moving pictures do."""
    generator = np.random.default_rng(seed)
    steps = generator.normal(0, 9, (frames, 12, 12))
    still = generator.normal(0, 30, (12, 12))
    drawn = 128 + still + np.cumsum(steps, 0) / np.sqrt(1 + frames / 9)
    return drawn.clip(0, 255).astype(np.uint8)


def test_views_are_cosine_transforms_of_averages():
    found = Fingerprint(8, thumbnails(3))

    seen = found.view((0.25, 0.75, 0.5, 1.0))

    # Six rows of thumbnails become eight: three quarters of a row each.
    slow = np.zeros((3, 8, 8))
    for frame, y, x in np.ndindex(slow.shape):
        rows = np.arange(300 + 75 * y, 300 + 75 * (y + 1)) // 100
        columns = np.arange(600 + 75 * x, 600 + 75 * (x + 1)) // 100
        part = found.thumbnails[frame][np.ix_(rows, columns)]
        slow[frame, y, x] = part.mean()
    waves = np.array(
        [
            [np.cos(np.pi * (place + 0.5) * wave / 8) for place in range(8)]
            for wave in range(8)
        ]
    )
    waves *= np.array([0.5**0.5, *[1.0] * 7])[:, None] / 2
    slow = np.einsum("uy,fyx,vx->fuv", waves, slow, waves).reshape(3, 64)
    np.testing.assert_allclose(seen, slow[:, ORDER], atol=1e-3)
    assert sorted(ORDER) == list(range(1, 64))


def test_mirrored_views_are_views_of_mirrored_pictures():
    found = Fingerprint(8, thumbnails(5))
    turned = Fingerprint(8, found.thumbnails[:, :, ::-1])

    np.testing.assert_allclose(turned.view(), found.view() * MIRROR, atol=1e-3)


@pytest.mark.parametrize(
    ("frames", "rate", "count"),
    [(40, 16, 25), (150, 16, 96), (250, 8, 80), (500, 4, 80)],
)
def test_short_videos_are_sampled_more_often(frames, rate, count, tmp_path):
    found = fingerprint(numbered.draw(tmp_path / "a.mp4", frames=frames))

    assert found.rate == rate
    assert found.thumbnails.shape == (count, 12, 12)
    assert found.thumbnails.dtype == np.uint8


def test_thumbnails_are_averages_of_the_frames_on_screen(shared, tmp_path):
    path = str(shared / "data/clips/mmaction2/demo.mp4")
    frames = timeline(path)

    found = fingerprint(path)

    assert found.rate == 8
    grid = np.arange(len(found)) / 8
    numbers = [int((frames.times <= t + 1e-6).sum()) - 1 for t in grid]
    pixels = decode(path, numbers).astype(float) @ [0.299, 0.587, 0.114]
    # 256 x 340 is not a multiple of 12: as large as possible that is.
    rows, columns = np.arange(252) * 256 // 252, np.arange(336) * 340 // 336
    slow = pixels[:, rows][:, :, columns]
    slow = slow.reshape(-1, 12, 21, 12, 28).mean((2, 4))
    # Grey as stored goes from 16 to 235 and may stay so.
    for mine, theirs in zip(found.thumbnails, slow, strict=True):
        assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.999


def test_thumbnails_of_long_videos_are_means_of_two_moments(tmp_path):
    path = numbered.draw(tmp_path / "long.mp4", frames=420)

    found = fingerprint(path)

    assert (found.rate, len(found)) == (4, 67)
    moments = np.arange(2 * 67) / 8
    # Blocks of 32 pixels are 6 rows and 3 columns of a thumbnail.
    blocks = [
        numbered.picture(int(moment * 25 + 1e-6))[16::32, 16::32, 0]
        for moment in moments
    ]
    drawn = np.repeat(np.repeat(blocks, 6, 1), 3, 2).astype(float)
    slow = drawn.reshape(67, 2, 12, 12).mean(1)
    np.testing.assert_allclose(found.thumbnails, slow, atol=12)


def test_turned_videos_are_upright(tmp_path):
    path = numbered.draw(tmp_path / "turned.mp4")
    plain = fingerprint(path).thumbnails
    numbered.turn(path, 90)
    os.utime(path, ns=(1, 1))

    turned = fingerprint(path).thumbnails

    # A turn clockwise is undone by one counter-clockwise.
    np.testing.assert_array_equal(np.rot90(turned, 1, (1, 2)), plain)


def test_folders_of_images_have_fingerprints_too(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(24):
        write_jpeg(folder / f"{number + 1:05}.jpg", numbered.picture(number))

    found = fingerprint(folder)

    assert (found.rate, len(found)) == (16, 32)
    assert found.live.any()


def write_jpeg(path, pixels):
    with av.open(str(path), "w", format="image2") as file:
        stream = file.add_stream("mjpeg", rate=1)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "yuvj420p"
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        file.mux(stream.encode(frame.reformat(format="yuvj420p")))
        file.mux(stream.encode())


def test_what_does_not_decode_is_a_video_error(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no film")

    with pytest.raises(VideoError, match=r"a\.mp4"):
        fingerprint(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="No such file"):
        identity(tmp_path / "b.mp4")


# The store


def test_stored_fingerprints_come_back_until_the_file_changes(tmp_path):
    path = numbered.draw(tmp_path / "a.mp4")
    made = fingerprint(path)
    with Store(tmp_path / "looks.db") as store:
        number = store.add(identity(path), made)
    with Store(tmp_path / "looks.db") as store:
        assert store.find(identity(path)) == number
        kept = store[number]
        os.utime(path, ns=(1, 1))
        assert store.find(identity(path)) is None
        store.add(identity(path), made)
        assert store.find(identity(path)) is not None
        (rows,) = store.data.execute(
            "SELECT count(*) FROM fingerprints"
        ).fetchone()

    assert kept.rate == made.rate
    np.testing.assert_array_equal(kept.thumbnails, made.thumbnails)
    assert rows == 1


def test_names_that_are_not_text_can_be_stored(tmp_path):
    whole = numbered.draw(tmp_path / "a.mp4")
    path = os.path.join(os.fsencode(tmp_path), b"bad\xff.mp4")
    try:
        shutil.copy(whole, path)
    except OSError:
        pytest.skip("this file system takes only text for names")
    key = identity(os.fsdecode(path))

    with Store() as store:
        assert store.find(key) is None
        assert store.find(key) is None
        store.add(key, fingerprint(os.fsdecode(path)))
        assert store.find(key) is not None


def test_other_files_are_no_cache(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a data base\n" * 99)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as data:
        data.execute("PRAGMA user_version = 1")
        data.execute("CREATE TABLE birds (name TEXT)")
    data.close()
    future = tmp_path / "future.db"
    with Store(future) as store:
        store.data.execute("PRAGMA user_version = 99")

    for path in (text, other, future):
        before = path.read_bytes()
        with pytest.raises(ValueError, match=f"{path.name} is no file of"):
            Store(path)
        assert path.read_bytes() == before


def test_a_damaged_cache_is_one_clear_line(tmp_path):
    path = numbered.draw(tmp_path / "a.mp4")
    with Store(tmp_path / "looks.db") as store:
        number = store.add(identity(path), fingerprint(path))
        store.data.execute("UPDATE fingerprints SET thumbnails = x'0102'")

        with pytest.raises(ValueError, match=r"looks\.db is damaged"):
            store[number]


def test_a_cache_that_cannot_be_opened_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="unable to open"):
        Store(tmp_path / "nowhere" / "looks.db")


# The index


def slow_keys(views):
    """The keys of patterns, bit by bit."""
    found = set()
    for view in views:
        weak = sorted(range(32), key=lambda bit: abs(view[bit]))[:4]
        for flips in itertools.product((0, 1), repeat=4):
            bits = [view[bit] > 0 for bit in range(32)]
            for bit, flip in zip(weak, flips, strict=True):
                bits[bit] ^= flip
            key = sum(int(on) << bit for bit, on in enumerate(bits))
            key ^= key >> 16
            key = key * 0x85EBCA6B % 2**32
            key ^= key >> 13
            key = key * 0xC2B2AE35 % 2**32
            found.add(key ^ key >> 16)
    return found


def test_the_index_proposes_what_trying_all_pairs_does(monkeypatch):
    monkeypatch.setattr(room, "FEWEST_KEYS", 1)
    generator = np.random.default_rng(3)
    kinds = generator.normal(0, 1, (90, 63))
    views = [
        (kinds[generator.integers(90, size=4)] * generator.uniform(1, 2)
         + generator.normal(0, 0.15, (4, 63))).astype(np.float32)
        for _ in range(60)
    ]  # fmt: skip
    # The last third share keys with others, but not the higher frequencies.
    for view in views[40:]:
        view[:, 32:] = generator.normal(0, 1, 31)
    slow = [slow_keys(view) for view in views]
    shared_keys = {
        (one, other)
        for one, other in itertools.combinations(range(60), 2)
        if slow[one] & slow[other]
    }
    # All bits of any two frames, one of each, are within reach.
    near = {
        (one, other)
        for one, other in itertools.combinations(range(60), 2)
        if ((views[one][:, None] > 0) != (views[other] > 0)).sum(2).min()
        <= room.DISTANCE
    }

    for parts in (1, 7):
        with Index(60) as index:
            index.parts = parts
            index.__enter__()  # with as many files
            for video, view in enumerate(views):
                index.insert(0, video, view)
            proposed = set(map(tuple, index.pairs().tolist()))

        assert proposed == shared_keys & near
    assert 20 < len(proposed) < 60 * 59 / 4
    assert proposed < shared_keys


def test_long_videos_keep_some_keys_and_the_same_as_their_parts():
    generator = np.random.default_rng(0)
    views = generator.normal(0, 1, (4000, 63)).astype(np.float32)

    with Index(2) as index:
        index.insert(0, 0, views)
        index.insert(0, 1, views[1000:2500])
        size = index.files[0][0].tell() // 16
        assert index.pairs().tolist() == [[0, 1]]

        file = index.files[0][0]
        file.seek(0)
        entries = np.frombuffer(file.read(), room._ENTRY)

    whole = set(entries["key"][entries["video"] == 0].tolist())
    part = set(entries["key"][entries["video"] == 1].tolist())
    assert room.KEYS < size <= 2 * room.KEYS
    assert room.KEYS / 3 < len(part) <= room.KEYS
    # What the longer one keeps of the other's, the shorter keeps too.
    assert whole & slow_keys(views[1000:2500]) == whole & part
    assert len(whole & part) > 100


def test_videos_that_share_two_keys_are_not_compared():
    views = np.tile(np.float32([1, -1, 1]), 21)[None].repeat(3, 0)
    # Keys are shared where weak bits are: two to the power of their number.
    for view, weak in zip(
        views, ([0, 1, 2, 3], [3, 4, 5, 6], [2, 3, 7, 8]), strict=True
    ):
        view[weak] /= 9

    for parts in (1, 5):
        with Index(3) as index:
            index.parts = parts
            index.__enter__()  # with as many files
            for video in range(3):
                index.insert(0, video, views[video : video + 1])

            assert index.pairs().tolist() == [[0, 2]]


def test_of_many_like_videos_those_with_most_keys_are_compared(monkeypatch):
    monkeypatch.setattr(room, "PARTNERS", 3)
    generator = np.random.default_rng(0)
    frames = generator.normal(0, 1, (40, 63)).astype(np.float32)
    chosen = [generator.permutation(40)[: 4 + 2 * n] for n in range(12)]
    common = {
        (one, other): len({*chosen[one]} & {*chosen[other]})
        for one, other in itertools.combinations(range(12), 2)
    }

    with Index(12) as index:
        for video, numbers in enumerate(chosen):
            index.insert(0, video, frames[numbers])
        proposed = set(map(tuple, index.pairs().tolist()))

    expected = set()
    for video in range(12):
        own = [pair for pair in common if video in pair and common[pair]]
        least = sorted(map(common.__getitem__, own))[-3:][0]
        # Of equals any may be taken.
        surely = {pair for pair in own if common[pair] > least}
        assert surely <= proposed
        expected |= {pair for pair in own if common[pair] >= least}
    assert proposed <= expected
    shared_any = sum(count > 0 for count in common.values())
    assert index.left_out == shared_any - len(proposed) > 0


def test_a_key_of_many_videos_does_not_join_them_all():
    """A thousand videos with one intro, two of which are copies."""
    generator = np.random.default_rng(0)
    intro = generator.normal(0, 1, (1, 63)).astype(np.float32)
    videos = 1000
    views = np.repeat(intro, videos, 0)
    # They differ a little, where the keys do not look: in high frequencies.
    for view in views:
        view[generator.integers(32, 63, 5)] *= -1
    views[777] = views[5]
    with Index(videos) as index:
        for video in range(videos):
            index.insert(0, video, views[video : video + 1])
        proposed = index.pairs().tolist()

    assert index.crowded == 16
    assert [5, 777] in proposed
    # One order of nearness serves all sixteen keys.
    assert videos < len(proposed) <= videos * room.NEAREST


def test_flat_frames_are_in_no_key_and_no_share():
    black = Fingerprint(16, np.full((50, 12, 12), 17, np.uint8))
    film = thumbnails(64)
    faded = Fingerprint(16, np.concatenate([black.thumbnails, film]))
    plain = Fingerprint(16, film)
    with Index(4) as index:
        for video, found in enumerate((black, black, faded, plain)):
            index.add(video, found)
        proposed = index.pairs().tolist()

    assert proposed == [[2, 3]]
    match = room.compare(Looks(faded), Looks(plain), 0.3)
    assert match == (1.0, 1.0, 1.0, 50 / 16, False)
    assert room.compare(Looks(black), Looks(plain), 0.3) is None


# Two videos


def slow_likeness(a, b, reach=8, still=0.02):
    """Windows around each frame, one after the other."""
    found = []
    for frame in range(len(a)):
        near = slice(max(0, frame - reach), frame + reach + 1)
        x, y = a[near].astype(float), b[near].astype(float)
        mean_x, mean_y = x.mean(0), y.mean(0)

        def product(u, v, mean_u, mean_v):
            changes = ((u - mean_u) * (v - mean_v)).sum()
            return changes + still * len(u) * (mean_u * mean_v).sum()

        found.append(
            product(x, y, mean_x, mean_y)
            / np.sqrt(
                product(x, x, mean_x, mean_x) * product(y, y, mean_y, mean_y)
            )
        )
    return np.array(found)


def test_likeness_is_a_correlation_over_time():
    one = Looks(Fingerprint(8, thumbnails(40, 1)))
    other = Looks(Fingerprint(8, thumbnails(50, 2)))
    windows = (room.CROPS[0], room.CROPS[5])

    seen = room._likeness(one, other, -1.25, windows, False)

    b = other.view(windows[1])
    expected = slow_likeness(one.view(), b[10:])
    np.testing.assert_allclose(seen, expected, atol=1e-4)
    # A third of a sample later.
    seen = room._likeness(one, other, -1.25 - 1 / 24, windows, False)
    expected = slow_likeness(one.view()[:39], (2 * b[10:49] + b[11:]) / 3)
    np.testing.assert_allclose(seen, expected, atol=1e-4)


def test_videos_of_two_rates_are_compared_at_the_lower():
    film = thumbnails(160, 1)
    # A copy of the second half, sampled half as often.
    slow = Looks(Fingerprint(8, film[80::2]))
    fast = Looks(Fingerprint(16, film))

    assert room.compare(fast, slow, 0.3) == (1.0, 0.5, 1.0, 5.0, False)
    assert room.compare(slow, fast, 0.3) == (1.0, 1.0, 0.5, -5.0, False)


def test_a_part_in_the_middle_of_another_film_counts_as_its_share():
    film, other = thumbnails(400, 1), thumbnails(400, 2)
    other[100:250] = film[200:350]

    match = room.compare(
        Looks(Fingerprint(4, film)), Looks(Fingerprint(4, other)), 0.2
    )

    share, share_one, share_other, offset, _ = match
    # At the seams windows hold frames of both.
    assert 0.32 < share == share_one == share_other < 0.38
    assert offset == 25.0


# Rows


def pair(one, other, **more):
    return Pair(one, other, 0.9, 0.5, 0.9, 1.0, **more)


def result(*pairs):
    return Duplicates(9, 99, pairs, 9, 0, 0, ())


def catalog(*rows):
    videos = tuple(
        Video(path, ("a",), group, None, split) for path, group, split in rows
    )
    return Catalog(videos, ("a",), "root")


def test_merged_rows_share_a_group_and_others_keep_theirs():
    rows = catalog(
        ("1.mp4", "x", None),
        ("2.mp4", "y", None),
        ("3.mp4", "y", None),
        ("4.mp4", None, None),
        ("5.mp4", None, None),
        ("6.mp4", "z", None),
        ("7.mp4", None, None),
    )

    clean = merged(
        rows,
        result(
            pair("3.mp4", "6.mp4"),
            pair("6.mp4", "1.mp4"),
            pair("5.mp4", "4.mp4"),
        ),
    )

    assert [video.group for video in clean] == [
        "x", "x", "x", "4.mp4", "4.mp4", "x", None,
    ]  # fmt: skip
    assert [video.path for video in clean] == [video.path for video in rows]
    assert clean.hold_out(0.4)


def test_what_is_tested_is_not_learned_from():
    rows = catalog(
        ("1.mp4", "x", "train"),
        ("2.mp4", "x", "train"),
        ("3.mp4", "y", "test"),
        ("4.mp4", None, "validation"),
        ("5.mp4", None, "train"),
        ("6.mp4", "z", "train"),
        ("7.mp4", "w", "train"),
    )

    clean = merged(
        rows,
        result(
            pair("2.mp4", "3.mp4"),
            pair("4.mp4", "5.mp4"),
            pair("6.mp4", "7.mp4"),
        ),
    )

    assert [(v.path, v.group, v.split) for v in clean] == [
        ("3.mp4", "x", "test"),
        ("4.mp4", "4.mp4", "validation"),
        ("6.mp4", "z", "train"),
        ("7.mp4", "z", "train"),
    ]


def test_pairs_tell_whether_they_straddle():
    assert pair("1", "2", splits=("train", "test")).straddles_split
    assert not pair("1", "2", splits=("train", "train")).straddles_split
    assert not pair("1", "2", splits=("train", None)).straddles_split
    assert pair("1", "2", groups=("x", "y")).straddles_group
    assert pair("1", "2", groups=("x", None)).straddles_group
    assert pair("1", "2").straddles_group
    assert not pair("1", "2", groups=("x", "x")).straddles_group


# The search


@pytest.fixture(scope="module")
def small(shapes_folder, tmp_path_factory):
    """Drawn videos: two of one split, and a copy of one in the other."""
    folder = tmp_path_factory.mktemp("small")
    videos = [v for v in open_catalog(shapes_folder) if v.split == "train"]
    lines = ["path,label,group,split"]
    for number, split in enumerate(("train", "train", "test", "test")):
        source = os.path.join(shapes_folder, videos[5 * number].path)
        shutil.copy(source, folder / f"{number}.mp4")
        lines.append(f"{number}.mp4,a,g{number},{split}")
    pixels = decode(folder / "1.mp4", np.arange(24))
    write(folder / "copy.mp4", pixels, 25, crf="30")
    (folder / "broken.mp4").write_bytes(b"no film")
    lines += ["copy.mp4,b,g9,test", "broken.mp4,b,g10,train"]
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_search_names_splits_groups_and_what_is_broken(small):
    told = []

    found = duplicates(
        open_catalog(small / "list.csv"),
        workers=2,
        progress=lambda *row: told.append(row),
    )

    (only,) = found.pairs
    assert (only.one, only.other) == ("1.mp4", "copy.mp4")
    assert only.splits == ("train", "test")
    assert only.groups == ("g1", "g9")
    assert only.straddles_split
    assert found.videos == 5
    assert [row["path"] for row in found.skipped] == ["broken.mp4"]
    assert [row for row in told if row[0] == "videos"] == [
        ("videos", done, 6) for done in range(1, 7)
    ]
    assert told[-1][0] == "pairs"
    json.dumps(found.to_json())


def test_a_search_goes_on_where_it_was_stopped(small, tmp_path, monkeypatch):
    cache = tmp_path / "looks.db"
    made = []

    def counted(path):
        made.append(os.path.basename(path))
        return fingerprint(path)

    def stop(what, done, total):
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(room, "fingerprint", counted)
    with pytest.raises(KeyboardInterrupt):
        duplicates(small, workers=1, cache=cache, progress=stop)
    made.clear()
    again = duplicates(small, workers=1, cache=cache)
    fresh = sorted(made)
    made.clear()
    third = duplicates(small, workers=1, cache=cache)

    assert fresh == ["3.mp4", "broken.mp4", "copy.mp4"]
    # What does not decode is tried again.
    assert made == ["broken.mp4"]
    assert again == third == duplicates(small, workers=3)


def test_a_search_of_nothing_finds_nothing(tmp_path):
    found = duplicates(tmp_path)

    assert (found.videos, found.pairs) == (0, ())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"threshold": 0}, r"`threshold` .* Received: threshold=0"),
        ({"threshold": 1.1}, "Received: threshold=1.1"),
        ({"workers": 0}, r"`workers` .* Received: workers=0"),
    ],
)
def test_wrong_arguments_are_named(options, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        duplicates(tmp_path, **options)


# The command


def run(*words):
    return cli.run(cli.parse(["duplicates", *map(str, words)]))


def test_the_command_tells_pairs_that_straddle_first(small, capsys):
    assert run(small / "list.csv") == 0

    out, err = capsys.readouterr()
    first, last = out.splitlines()
    assert first.startswith("train/test g1/g9 1.mp4 = copy.mp4: ")
    assert "100.0 % of the shorter" in first
    assert last == ("5 videos, 1 skipped; pairs of copies: 1, across splits: 1")
    assert "skipped broken.mp4: " in err
    assert "6 of 6 videos" in err


def test_the_command_writes_json_and_a_clean_catalog(small, tmp_path, capsys):
    # Rows of the folder, and of another where paths must be whole.
    for place in (small / "clean.csv", tmp_path / "clean.csv"):
        assert run(small / "list.csv", "--csv", place, "--json", "-") == 0

        told = json.loads(capsys.readouterr().out)
        clean = open_catalog(place)
        assert told["pairs"][0]["straddles_split"] is True
        assert told["skipped"][0]["path"] == "broken.mp4"
        assert len(clean) == 5
        assert all(os.path.isfile(clean.file(video)) for video in clean)
        assert [video.split for video in clean].count("test") == 3


def test_the_command_refuses_a_wrong_call(small, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(small, "--threshold", "2")

    assert stopped.value.code == 2
    assert "at most 1" in capsys.readouterr().err
