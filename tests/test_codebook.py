"""Words and shares, held against slow, plain computations."""

import json
import math
from functools import partial

import numpy as np
import pytest

from keras_videofusion.baseline import codebook
from keras_videofusion.baseline.arrays import read_arrays, write_arrays
from keras_videofusion.baseline.codebook import (
    Codebooks,
    learn,
    learn_reduced,
    LEARNED,
    Vocabulary,
)
from keras_videofusion.baseline.descriptors import Local
from keras_videofusion.baseline.settings import Settings

pytest.importorskip(
    "sklearn", reason="needs pip install 'keras-videofusion[baseline]'"
)

SMALL = Settings(
    side=32,
    hog_dense_words=5,
    hog_corners_words=4,
    texton_dense_words=3,
    texton_corners_words=3,
    cuboid_points_words=6,
    cuboid_dense_words=2,
    hues=3,
    saturations=2,
    colour_words=3,
    faces=4,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def vocabularies(settings=SMALL, numbers=7):
    """A vocabulary for each block that has one, of random words."""
    return {
        block.name: Vocabulary(
            normal(block.words, numbers, seed=place), 0.5 + place / 10
        )
        for place, block in enumerate(settings.blocks)
        if block.kind in LEARNED
    }


def plain_shares(value, vocabulary, count):
    """What one descriptor gives to each word, by the formula as printed."""
    far = [math.dist(value, word) for word in vocabulary.words]
    near = sorted(range(len(far)), key=far.__getitem__)[:count]
    gives = {
        word: math.exp(-(far[word] ** 2) / (2 * vocabulary.sigma**2))
        for word in near
    }
    return {word: share / sum(gives.values()) for word, share in gives.items()}


def plain_vector(runs, books):
    """A video's vector, a descriptor at a time."""
    vector = []
    for block in books.settings.blocks:
        counts = [[0.0] * block.words for _ in range(block.cells)]
        for run in runs:
            found = run[block.name]
            if block.kind == "faces":
                for number in found:
                    counts[0][min(int(number), block.words - 1)] += 1
                continue
            if block.kind == "counts":
                for cell, row in enumerate(found):
                    for place, count in enumerate(row):
                        counts[cell][place] += int(count)
                continue
            vocabulary = books.vocabularies[block.name]
            for value, cell in zip(found.values, found.cells, strict=True):
                if vocabulary.axes is not None:
                    value = (value - vocabulary.mean) @ vocabulary.axes
                shares = plain_shares(value, vocabulary, 4)
                cells = {int(cell)} if block.kind == "vectors" else {0, cell}
                for place, share in shares.items():
                    for into in cells:
                        counts[into][place] += share
        for row in counts:
            total = sum(row)
            vector += [
                value / total if total else 1 / len(row) for value in row
            ]
    return np.array(vector)


def drawn_run(generator, frames=3, numbers=7):
    """A run as `describe` yields it, of random descriptors."""
    run = {}
    for block in SMALL.blocks:
        if block.kind == "faces":
            run[block.name] = generator.integers(0, 7, frames)
        elif block.kind == "counts":
            run[block.name] = generator.integers(0, 9, (5, block.words))
        else:
            count = 5 * frames
            values = generator.normal(size=(count, numbers))
            least = 0 if block.kind == "vectors" else 1
            run[block.name] = Local(
                values.astype(np.float32),
                generator.integers(least, 5, count).astype(np.int8),
            )
    return run


@pytest.mark.parametrize("count", [1, 4, 9])
def test_shares_are_those_of_the_formula(count):
    vocabulary = Vocabulary(normal(20, 6), 0.8)
    values = normal(600, 6, seed=1)  # more than are looked at at a time

    places, shares = vocabulary.shares(values, count)

    assert places.shape == shares.shape == (600, count)
    for value, where, share in zip(values, places, shares, strict=True):
        expected = plain_shares(value, vocabulary, count)
        assert set(where) == set(expected)
        np.testing.assert_allclose(
            share, [expected[place] for place in where], rtol=2e-4, atol=1e-9
        )


@pytest.mark.parametrize("far", [0, 1e3])
def test_each_descriptor_adds_1_however_far_from_all_words(far):
    vocabulary = Vocabulary(normal(20, 6), 0.01)

    _, shares = vocabulary.shares(normal(50, 6, seed=1) + far, 4)

    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-12)


def test_squares_keep_their_figures_far_from_the_origin():
    words, values = normal(30, 8) + 100, normal(40, 8, seed=1) + 100

    places, squares = Vocabulary(words, 1.0).nearest(values, 3)

    exact = np.square(words[places].astype(float) - values[:, None]).sum(-1)
    np.testing.assert_allclose(squares, exact, rtol=1e-4)
    assert (np.diff(squares, axis=1) >= 0).all()


def test_fewer_words_than_neighbours_share_among_themselves():
    places, shares = Vocabulary(normal(2, 3), 1.0).shares(normal(5, 3), 4)

    assert places.shape == (5, 2)
    np.testing.assert_allclose(shares.sum(1), 1)


def test_a_small_sample_is_its_own_words_and_other_bins_stay_empty():
    sample = np.repeat(normal(3, 4), 10, axis=0)

    found = learn(sample, 8, seed=0)

    assert sorted(map(tuple, found.words)) == sorted(map(tuple, sample[::10]))
    assert found.sigma == 0
    # Of three words the one that it is takes all.
    places, shares = found.shares(sample, 4)
    np.testing.assert_array_equal(found.words[places[:, 0]], sample)
    np.testing.assert_array_equal(shares, [[1, 0, 0]] * 30)


def test_a_block_without_a_sample_has_uniform_histograms():
    books = Codebooks(
        SMALL,
        {**vocabularies(), "hog_dense": learn(np.zeros((0, 7)), 5, seed=0)},
    )
    generator = np.random.default_rng(0)

    vector = books.vector([drawn_run(generator)])

    np.testing.assert_allclose(vector[:25], 1 / 5)
    np.testing.assert_allclose(vector.sum(), 41, rtol=1e-6)


def test_words_are_means_and_sigma_is_the_mean_distance_to_them():
    centres = 10 * normal(6, 5)
    sample = np.repeat(centres, 200, axis=0) + normal(1200, 5, seed=1) / 10

    found = learn(sample, 6, seed=0)

    for centre in centres:
        assert min(math.dist(centre, word) for word in found.words) < 0.2
    far = [min(math.dist(x, w) for w in found.words) for x in sample]
    assert found.sigma == pytest.approx(np.mean(far), rel=1e-3)


def test_words_depend_on_the_seed_alone():
    sample = normal(3000, 5)

    first, again = learn(sample, 20, seed=1), learn(sample, 20, seed=1)

    np.testing.assert_array_equal(first.words, again.words)
    assert first.sigma == again.sigma
    assert not np.array_equal(first.words, learn(sample, 20, seed=2).words)


@pytest.fixture
def large():
    """A sample of few dimensions amid many, in parts, and their keys."""
    generator = np.random.default_rng(0)
    inner = generator.normal(size=(900, 4)) * [8, 4, 2, 1]
    turn = np.linalg.qr(generator.normal(size=(30, 4)))[0]
    sample = (inner @ turn.T + 3).astype(np.float32)
    parts = np.split(sample, [100, 500])
    keys = np.split(generator.random(900), [100, 500])
    return sample, [partial(np.copy, part) for part in parts], keys


def test_reduced_descriptors_are_principal_components(large):
    sample, parts, keys = large

    found = learn_reduced(parts, keys, 12, 4, seed=0)

    assert found.words.shape == (12, 4)
    centred = sample - sample.mean(0, dtype=float)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:4].T
    ours = np.abs(found.reduced(sample))
    np.testing.assert_allclose(ours, np.abs(centred @ axes), atol=2e-3)
    # Distances are those of the descriptors, since no dimension is lost.
    far = math.dist(sample[0], sample[700])
    reduced = found.reduced(sample[[0, 700]])
    assert math.dist(*reduced) == pytest.approx(far, rel=1e-4)


def test_components_are_learned_of_the_smallest_keys(large, monkeypatch):
    sample, parts, keys = large
    monkeypatch.setattr(codebook, "_PCA_SAMPLE", 50)

    found = learn_reduced(parts, keys, 12, 4, seed=0)

    chosen = sample[np.argsort(np.concatenate(keys))[:50]]
    np.testing.assert_allclose(found.mean, chosen.mean(0), rtol=1e-5)
    assert found.words.shape == (12, 4)


@pytest.mark.parametrize(("count", "numbers"), [(3, 2), (1, 0), (0, 4)])
def test_components_are_no_more_than_the_sample_has(count, numbers):
    sample = normal(count, 9)

    found = learn_reduced([lambda: sample], [np.arange(count)], 5, 4, seed=0)

    assert found.words.shape == (count, numbers)
    places, shares = found.shares(sample, 4)
    assert places.shape == shares.shape == (count, min(count, 4))
    np.testing.assert_allclose(shares.sum(1), 1)


def test_a_vector_is_that_of_a_plain_computation():
    generator = np.random.default_rng(3)
    runs = [drawn_run(generator), drawn_run(generator, 2)]
    books = Codebooks(SMALL, vocabularies())

    vector = books.vector(runs)

    assert vector.dtype == np.float32
    assert vector.shape == (SMALL.size,)
    np.testing.assert_allclose(vector, plain_vector(runs, books), rtol=1e-3)


def test_every_histogram_sums_to_1_where_there_is_nothing_to_count():
    none = {
        block.name: Local(np.zeros((0, 7), np.float32), np.zeros(0, np.int8))
        for block in SMALL.blocks
        if block.kind in LEARNED
    }
    none |= {"hue_saturation": np.zeros((5, 6), int), "faces": np.array([9])}
    books = Codebooks(SMALL, vocabularies())

    vector = books.vector([none])

    uniform = [
        np.full(block.size, 1 / block.words) for block in SMALL.blocks[:-1]
    ]
    np.testing.assert_allclose(
        vector, np.concatenate([*uniform, [0, 0, 0, 1]]), rtol=1e-6
    )


@pytest.fixture
def books():
    found = vocabularies()
    found["cuboid_points"] = Vocabulary(
        normal(6, 2), 0.5, normal(9), normal(9, 2)
    )
    return Codebooks(SMALL, found)


def test_codebooks_come_back_as_they_were(books, tmp_path):
    books.save(tmp_path / "books.npz")

    found = Codebooks.load(tmp_path / "books.npz")

    assert found.settings == books.settings
    assert list(found.vocabularies) == list(books.vocabularies)
    for name, vocabulary in books.vocabularies.items():
        other = found.vocabularies[name]
        assert other.sigma == vocabulary.sigma
        for part in ("words", "mean", "axes"):
            np.testing.assert_array_equal(
                getattr(other, part), getattr(vocabulary, part)
            )


def test_the_same_codebooks_are_the_same_bytes(books, tmp_path, monkeypatch):
    books.save(tmp_path / "a.npz")
    monkeypatch.setattr("time.time", lambda: 2e9)
    books.save(tmp_path / "b.npz")

    assert (tmp_path / "a.npz").read_bytes() == (
        tmp_path / "b.npz"
    ).read_bytes()


def with_header(file, **changes):
    """Writes a file again with another header."""
    with read_arrays(file) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    header = {**json.loads(str(found["header"])), **changes}
    write_arrays(file, {**found, "header": json.dumps(header)}.items())


def test_other_files_are_refused_in_a_line(books, tmp_path):
    file = tmp_path / "books.npz"

    def refused(reason):
        with pytest.raises(ValueError, match=reason) as found:
            Codebooks.load(file)
        assert str(found.value).startswith(f"{file} is no file of codebooks: ")
        assert "\n" not in str(found.value)

    file.write_bytes(b"something else")
    refused("no .npz file")
    np.savez(file, a=np.zeros(3))
    refused("header")
    np.savez(file, header=np.array([{"format": 1}], object))
    refused("pickle")
    books.save(file)
    with_header(file, version=2)
    refused("version 2")
    with_header(file, format="shards", version=1)
    refused("something else")
    books.save(file)
    with_header(file, settings={**SMALL.to_json(), "ears": 2})
    refused("ears")
    with_header(file, settings={**SMALL.to_json(), "hog_dense_words": 2})
    refused("words of hog_dense")
    books.save(file)
    file.write_bytes(file.read_bytes()[:-100])
    refused("damaged")
    books.save(file)
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    file.write_bytes(damaged)
    refused("damaged")
    with pytest.raises(FileNotFoundError):
        Codebooks.load(tmp_path / "none.npz")
