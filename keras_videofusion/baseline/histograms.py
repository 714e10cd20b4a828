"""Videos into vectors of histograms: words are learned, then all is counted.

First a sample of the descriptors of training videos, and of no others,
becomes words; then the descriptors of every video are counted by them. Worker
processes do both, a video at a time; what they find stands in files of OUT's
folder `work` until all of it is done:

    plan.json            settings, seed and rows that the rest belongs to
    sample-00012.npz     descriptors of row 12, a training video
    words-hog_dense.npz  a block's vocabulary
    vector-00012.npz     the vector of row 12, and its frames

What is drawn depends on the seed and on names alone, and every process counts
with one thread: so any number of workers, killed and started again as often
as one likes, writes the same bytes.
"""

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np

from keras_videofusion.baseline.arrays import read_arrays, write_arrays
from keras_videofusion.baseline.codebook import (
    arrays_of,
    Codebooks,
    learn,
    learn_reduced,
    LEARNED,
    vocabulary_of,
)
from keras_videofusion.baseline.descriptors import describe, Local
from keras_videofusion.baseline.settings import Settings
from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.data.clips import generator_of
from keras_videofusion.data.files import (
    absolute,
    bytes_of,
    exists,
    is_remote,
    join,
    make_folder,
    names,
    read_json,
    remove,
    write_json,
)
from keras_videofusion.data.fingerprints import identity
from keras_videofusion.data.manifest import (
    CATALOG,
    CLASSES,
    MANIFEST,
    read_header,
)
from keras_videofusion.data.processes import (
    answer_all,
    code_of,
    name_of,
    Team,
)
from keras_videofusion.data.vectors import (
    expect_room,
    read_vectors,
    write_vectors,
)
from keras_videofusion.data.video import reason, VideoError

CODEBOOKS = "codebooks.npz"
WORK = "work"
PLAN = "plan.json"
FORMAT = "keras_videofusion histograms"
VERSION = 1
# Words are learned from so many training videos at most, drawn by their names:
# more would cost a pass over all of them and change no word that matters.
VIDEOS = 2000
# Fields of `Settings` that descriptors do not depend on.
_LATER = {"cuboid_numbers", "faces", "neighbours", "sample", "cuboid_sample"}
_CODE = code_of("keras_videofusion.baseline.histograms")


def compute(
    catalog: Catalog,
    out: str | os.PathLike,
    settings: Settings | None = None,
    seed: int = 0,
    workers: int | None = None,
    keep: str | os.PathLike | None = None,
    overwrite: bool = False,
    on_error: str = "skip",
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes the histograms of a catalog's videos as a folder of vectors.

    Work that was stopped goes on where it was; a folder that is finished is
    left as it is. The words stand beside the vectors, in `codebooks.npz`.

    Args:
        catalog: `Catalog`; words are learned from its rows of the split
            "train" alone.
        out: Folder or address.
        settings: `Settings`; the defaults if not given.
        seed: Integer, 0 or more: of the sample and of k-means.
        workers: Integer, videos at a time; as many as processors if None.
        keep: Folder or address where all descriptors are kept, as float16,
            so that other splits and seeds need not compute them again; or
            None: then those of training videos are computed twice.
        overwrite: Whether histograms of other settings, rows or of another
            seed are replaced.
        on_error: `"skip"`: a broken video is left out and named; `"raise"`:
            it ends the work.
        progress: Function of what is done (`"videos sampled"`, `"blocks
            learned"`, `"videos described"`), how many of it and of how many.

    Returns:
        Dict `{videos, computed, frames, seconds, learned_from, words, size,
        skipped}`: `computed` and `frames` are of this call, `words` counts
        those of each block, `skipped` is a list of `{path, error}`.

    Raises:
        ValueError: If an argument is out of range, if `out` holds something
            else, or if no training video can be read.
        VideoError: If a video is broken and `on_error` is `"raise"`.
        RuntimeError: If worker processes fail.

    Reference:
        Karpathy et al., CVPR 2014, section 4.1.
    """
    settings = settings or Settings()
    _check(catalog, out, seed, workers, on_error)
    begun = time.monotonic()
    job = _Job(catalog, os.fspath(out), settings, seed, keep, on_error)
    finished = None if overwrite else read_vectors(job.out)
    if finished is not None:
        # It is as good with kept descriptors as without.
        job.expect_same(finished.settings, but=("kept",))
        remove(join(job.out, WORK))
    else:
        job.begin(overwrite)
        count = max(1, min(workers or os.cpu_count() or 1, len(catalog)))
        with Team(_CODE, count) as team:
            finished = job.done(team, progress or (lambda *_: None))
        remove(join(job.out, WORK))
    return {
        "videos": len(finished),
        "computed": job.computed,
        "frames": job.frames,
        "seconds": round(time.monotonic() - begun, 3),
        "learned_from": finished.settings["learned_from"],
        "words": finished.settings["words"],
        "size": finished.size,
        "skipped": finished.skipped,
    }


def load_codebooks(folder: str | os.PathLike) -> Codebooks:
    """The words of a folder of histograms.

    Args:
        folder: Path or address of a folder with `codebooks.npz`.

    Raises:
        ValueError: If it has none, or they are damaged.
    """
    place = join(folder, CODEBOOKS)
    if not exists(place):
        raise ValueError(
            f"{os.fspath(folder)} holds no {CODEBOOKS}: it is no folder that "
            "`videofusion histograms DATA OUT` made"
        )
    return Codebooks.load(place)


def vector_of(
    path,
    codebooks: Codebooks,
    start: float | None = None,
    end: float | None = None,
) -> np.ndarray:
    """The histograms of one video.

    Args:
        path: File, or folder of images.
        codebooks: `Codebooks`.
        start: Float, seconds; earlier frames do not count.
        end: Float, seconds; frames from there on do not count.

    Returns:
        Float32 array of shape `(codebooks.settings.size,)`.

    Raises:
        VideoError: If the video cannot be read.
    """
    return codebooks.vector(describe(path, codebooks.settings, start, end))


def _check(catalog, out, seed, workers, on_error):
    if seed < 0:
        raise ValueError(f"`seed` must be 0 or more. Received: seed={seed}")
    if workers is not None and workers < 1:
        raise ValueError(
            f"`workers` must be 1 or more. Received: workers={workers}"
        )
    if on_error not in ("skip", "raise"):
        raise ValueError(
            '`on_error` must be "skip" or "raise". '
            f"Received: on_error={on_error!r}"
        )
    if read_header(catalog.root) is not None:
        raise ValueError(
            "histograms are made of video files, not of what was made of "
            f"videos. Received: {catalog.root}"
        )
    if absolute(out) == absolute(catalog.root):
        raise ValueError(
            "vectors need a folder of their own. Received: OUT=DATA="
            f"{os.fspath(out)}"
        )
    if not any(video.split == "train" for video in catalog):
        raise ValueError(
            "words are learned from training videos: some rows must be of "
            f'the split "train". Received: {len(catalog)} rows, none of it'
        )


class _Job:
    """What `compute` does, from its arguments to the folder."""

    def __init__(self, catalog, out, settings, seed, keep, on_error):
        self.catalog, self.out, self.settings = catalog, out, settings
        self.work = join(out, WORK)
        self.on_error = on_error
        self.plan = {
            "format": FORMAT,
            "version": VERSION,
            "settings": settings.to_json(),
            "seed": seed,
            "rows": _rows_digest(catalog),
            # As float16 they are a little different.
            "kept": keep is not None,
        }
        self.common = {
            "settings": settings.to_json(),
            "seed": seed,
            "keep": None if keep is None else absolute(keep),
        }
        self.learned = [b for b in settings.blocks if b.kind in LEARNED]
        self.computed = self.frames = 0

    def begin(self, overwrite):
        """Makes the folder, or takes up work that was stopped."""
        before = self._begun()
        if before is not None and overwrite:
            remove(self.work)
        elif before is not None:
            self.expect_same(before)
        if before is not None and not exists(join(self.out, MANIFEST)):
            # Stopped between them and the manifest: they are ours.
            for name in (CATALOG, CLASSES):
                remove(join(self.out, name))
        expect_room(self.out, overwrite)
        make_folder(self.work)
        write_json(join(self.work, PLAN), self.plan)
        # What it held is given up: a call without --overwrite goes on here.
        for name in (MANIFEST, CATALOG, CLASSES):
            remove(join(self.out, name))
        if self.common["keep"]:
            make_folder(self.common["keep"])
        self.stand = set(names(self.work))

    def _begun(self):
        """The plan of work that was stopped; None if there is none."""
        before: Any = None
        if exists(join(self.work, PLAN)):
            with contextlib.suppress(ValueError):
                before = read_json(join(self.work, PLAN))
        elif not exists(self.work) or not names(self.work):
            return None
        if not isinstance(before, dict) or before.get("format") != FORMAT:
            raise ValueError(
                f"{self.out} holds something else: name another folder, so "
                f"that nothing of yours is lost. Received: {WORK} in it"
            )
        return before

    def expect_same(self, before, but=()):
        """Refuses what belongs to another call, whatever `but` says of it."""
        was = {**before, **(before.get("settings") or {})}
        now = {**self.plan, **self.plan["settings"]}
        differ = [
            name
            for name, value in now.items()
            if name not in ("settings", *but) and was.get(name) != value
        ]
        if differ:
            raise ValueError(
                f"{self.out} holds vectors of another call: pass --overwrite "
                "to replace them, or name another folder. "
                f"Different: {', '.join(differ)}"
            )

    def done(self, team, progress):
        """Learns the words, counts by them, writes the folder."""
        rows = self._learners()
        sampled = self._samples(team, rows, progress)
        self._words(team, sampled, progress)
        books = Codebooks(
            self.settings,
            {block.name: _words_of(self.work, block) for block in self.learned},
        )
        books.save(join(self.work, CODEBOOKS))
        books.save(join(self.out, CODEBOOKS))
        skipped: list[dict[str, str]] = []
        return write_vectors(
            self.out,
            self.catalog,
            self.settings.size,
            self._vectors(team, skipped, progress),
            kind="histograms",
            blocks=self.settings.spans,
            settings={
                **self.plan,
                "learned_from": len(sampled),
                "words": {
                    name: len(found.words)
                    for name, found in books.vocabularies.items()
                },
            },
            skipped=skipped,
            overwrite=True,
        )

    def _learners(self):
        """Rows whose descriptors are sampled, ascending."""
        rows = [
            row
            for row, video in enumerate(self.catalog)
            if video.split == "train"
        ]
        if len(rows) > VIDEOS:
            drawn = [
                generator_of(self.common["seed"], _name(self.catalog[row]))
                .random()
                for row in rows
            ]  # fmt: skip
            chosen = np.argsort(drawn, kind="stable")[:VIDEOS]
            rows = sorted(rows[place] for place in chosen)
        return rows

    def _samples(self, team, rows, progress):
        """Names of the sample files; of broken videos there are none."""
        quota = {
            block.name: math.ceil(
                (
                    self.settings.cuboid_sample
                    if block.kind == "cuboids"
                    else self.settings.sample
                )
                / len(rows)
            )
            for block in self.learned
        }

        def sample(row):
            name = f"sample-{row:05d}.npz"
            if name not in self.stand:
                answer = self._asked(team, "sample", row, name, quota=quota)
                if answer.get("error"):
                    return None
            return name

        sampled = []
        progress("videos sampled", 0, len(rows))
        for done, name in enumerate(team.in_order(sample, rows), 1):
            progress("videos sampled", done, len(rows))
            if name is not None:
                sampled.append(name)
        if not sampled:
            raise ValueError(
                "words are learned from training videos, and none of "
                f"{len(rows)} can be read. Received: {self.catalog.root}"
            )
        return sampled

    def _words(self, team, sampled, progress):
        def learned(block):
            name = f"words-{block.name}.npz"
            if name not in self.stand:
                question = {
                    **self.common,
                    "do": "learn",
                    "block": block.name,
                    "samples": [join(self.work, one) for one in sampled],
                    "out": join(self.work, name),
                }
                answer, status = team.ask(question)
                if status:
                    raise RuntimeError(
                        f"learning the words of {block.name} crashed "
                        f"({name_of(status)}); is there memory enough?"
                    )
                _expect_well(answer)

        # Cuboids take longest.
        order = sorted(self.learned, key=lambda block: block.kind != "cuboids")
        progress("blocks learned", 0, len(order))
        for done, _ in enumerate(team.in_order(learned, order), 1):
            progress("blocks learned", done, len(order))

    def _vectors(self, team, skipped, progress):
        """Yields every row's vector, None of a broken video."""

        def vector(row):
            name = f"vector-{row:05d}.npz"
            if name in self.stand:
                return name, None
            answer = self._asked(
                team,
                "vector",
                row,
                name,
                codebooks=join(self.work, CODEBOOKS),
            )
            return name, answer

        rows = range(len(self.catalog))
        progress("videos described", 0, len(rows))
        for done, (name, answer) in enumerate(team.in_order(vector, rows), 1):
            progress("videos described", done, len(rows))
            if answer is not None and answer.get("error"):
                skipped.append(
                    {
                        "path": self.catalog[done - 1].path,
                        "error": answer["error"],
                    }
                )
                yield None
                continue
            if answer is not None:
                self.computed += 1
                self.frames += answer["frames"]
            with read_arrays(join(self.work, name)) as arrays:
                found = arrays["vector"]
            yield found

    def _asked(self, team, what, row, name, **more):
        """What a worker says of a video."""
        video = self.catalog[row]
        question = {
            **self.common,
            "do": what,
            "path": self.catalog.file(video),
            "name": _name(video),
            "start": video.start,
            "end": video.end,
            "out": join(self.work, name),
            **more,
        }
        answer, status = team.ask(question)
        if status:
            answer = {"error": f"describing it crashed ({name_of(status)})"}
        _expect_well(answer)
        if self.on_error == "raise" and answer.get("error"):
            raise VideoError(question["path"], answer["error"])
        return answer


def _rows_digest(catalog):
    rows = "\n".join((catalog.to_csv(), *catalog.classes))
    return hashlib.sha256(rows.encode("utf-8", "surrogateescape")).hexdigest()


def _name(video: Video) -> str:
    """What draws of a video depend on."""
    return f"{video.path}#{video.start}-{video.end}"


def _expect_well(answer):
    """Raises what is no video's fault."""
    if answer.get("missing"):
        raise ImportError(answer["missing"])
    if answer.get("failed"):
        raise RuntimeError(answer["failed"])


# What worker processes do.


def serve() -> None:
    """What a worker process runs: see `keras_videofusion.data.processes`."""
    answer_all(_answer)


def _answer(question):
    """The answer to a question of `_Job`; the result goes to a file."""
    work = {"sample": _sample, "learn": _learn, "vector": _vector}
    try:
        return work[question["do"]](question)
    except VideoError as error:
        return {"error": error.reason}
    except ImportError as error:
        return {"missing": str(error)}
    except OSError as error:
        return {"failed": f"{error.filename}: {reason(error)}"}
    except Exception as error:  # of this video; the others go on
        line = " ".join(f"{type(error).__name__}: {error}".split())
        return {"failed" if question["do"] == "learn" else "error": line}


def _sample(question):
    """Writes some descriptors of a video, and the keys they were drawn by."""
    quota = question["quota"]
    drawn = {
        name: _Sample(
            most, generator_of(question["seed"], f"{name} {question['name']}")
        )
        for name, most in quota.items()
    }
    for run in _runs(question, tuple(quota)):
        for name, sample in drawn.items():
            sample.add(run[name].values)
    write_arrays(
        question["out"],
        (
            pair
            for name, sample in drawn.items()
            for pair in (
                (f"{name}/values", sample.values),
                (f"{name}/keys", sample.keys),
            )
        ),
    )
    return {}


class _Sample:
    """The descriptors with the smallest random keys, so many at most.

    Which they are does not depend on how many come at a time.
    """

    def __init__(self, most, generator):
        self.most, self.generator = most, generator
        self.values: Any = np.zeros((0, 0), np.float32)
        self.keys = np.zeros(0)

    def add(self, values):
        keys = self.generator.random(len(values))
        if len(self.keys) == self.most:  # few are small enough
            better = keys < self.keys[-1]
            values, keys = values[better], keys[better]
        if not len(keys):
            return
        keys = np.concatenate([self.keys, keys])
        order = np.argsort(keys)[: self.most]
        old = self.values.reshape(-1, values.shape[1])
        self.values = np.concatenate([old, values])[order]
        self.keys = keys[order]


def _learn(question):
    """Writes the words of a block."""
    settings = Settings.from_json(question["settings"])
    name = question["block"]
    (block,) = (block for block in settings.blocks if block.name == name)
    seed = int(
        generator_of(question["seed"], f"words of {name}").integers(1 << 31)
    )
    keys, parts = [], []
    for file in question["samples"]:
        own = _array(file, f"{name}/keys")
        if len(own):
            keys.append(own)
            parts.append(partial(_array, file, f"{name}/values"))
    if block.kind == "cuboids":
        found = learn_reduced(
            parts, keys, block.words, settings.cuboid_numbers, seed
        )
    elif parts:
        sample = np.concatenate([part() for part in parts])
        found = learn(sample, block.words, seed)
    else:
        found = learn(np.zeros((0, 1), np.float32), block.words, seed)
    write_arrays(question["out"], arrays_of(found))
    return {}


def _array(file, name):
    with read_arrays(file) as arrays:
        return arrays[name]


def _words_of(folder, block):
    """The vocabulary of a block that a worker wrote."""
    with read_arrays(join(folder, f"words-{block.name}.npz")) as arrays:
        return vocabulary_of(arrays)


# Every process has one job, whose words do not change.
_codebooks = lru_cache(maxsize=1)(Codebooks.load)


def _vector(question):
    """Writes the vector of a video."""
    frames = 0

    def counted():
        nonlocal frames
        for run in _runs(question):
            frames += len(run["faces"])
            yield run

    vector = _codebooks(question["codebooks"]).vector(counted())
    write_arrays(
        question["out"], (("vector", vector), ("frames", np.array(frames)))
    )
    return {"frames": frames}


# Descriptors that are kept.


def _runs(question, blocks=None) -> Iterator[dict[str, Any]]:
    """Descriptors of a video as `describe` yields them, or as kept."""
    settings = Settings.from_json(question["settings"])
    path, start, end = question["path"], question["start"], question["end"]
    if question["keep"] is None:
        return describe(path, settings, start, end, blocks)
    file = join(question["keep"], _kept_name(path, start, end, settings))
    try:
        with read_arrays(file) as arrays:
            arrays["runs"]
    except (ValueError, OSError):
        write_arrays(file, _halved(describe(path, settings, start, end)))
    return _kept(path, file, blocks or [b.name for b in settings.blocks])


def _kept_name(path, start, end, settings):
    """A name that changes with all that descriptors depend on."""
    if is_remote(path):
        source = [path, bytes_of(path)]
    else:
        whole, size, changed = identity(path)
        source = [os.fsdecode(whole), size, changed]
    values = {
        name: value
        for name, value in settings.to_json().items()
        if name not in _LATER and not name.endswith("_words")
    }
    told = json.dumps([VERSION, source, start, end, values], sort_keys=True)
    return f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.npz"


def _halved(runs):
    """Yields names and arrays of descriptors, floats as float16."""
    count = 0
    for run in runs:
        for name, found in run.items():
            if isinstance(found, Local):
                # What is beyond its range is as far as can be.
                values = np.clip(found.values, -65504, 65504)
                yield f"{count}/{name}/values", values.astype(np.float16)
                yield f"{count}/{name}/cells", found.cells
            else:
                yield f"{count}/{name}", found
        count += 1
    yield "runs", np.array(count)


def _kept(path, file, blocks):
    """Yields descriptors as they were kept."""
    try:
        with read_arrays(file) as arrays:
            for run in range(int(arrays["runs"])):
                yield {
                    name: (
                        arrays[f"{run}/{name}"]
                        if f"{run}/{name}" in arrays
                        else Local(
                            arrays[f"{run}/{name}/values"],
                            arrays[f"{run}/{name}/cells"],
                        )
                    )
                    for name in blocks
                }
    except ValueError as error:
        raise VideoError(
            path, f"its kept descriptors are damaged, delete {file}"
        ) from error
