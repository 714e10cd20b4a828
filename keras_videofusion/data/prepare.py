"""Videos into shards: JPEG frames in TFRecord, to be trained from at scale.

A record is a `tf.train.Example` of one clip: `frames` (JPEG, in the order of
time; resized, not cropped, so that crops and flips are drawn at reading),
`flow` (grey JPEG, x and y of a field in turn), `video` (row of `catalog.csv`),
`clip` (its number among the video's), `start` (seconds), `labels` (numbers of
classes), `path`. Where whole videos are stored, `clip` numbers their parts,
and a record carries the part's frames, their `times` (microseconds from the
first frame of the file), the number of its `first` frame and the `total`.

Clips of a video are neighbours; videos follow in an order shuffled once.
Which videos a shard holds and every draw depend on the seed and the catalog
alone, so any number of workers, killed and started again as often as one
likes, writes the same bytes. A shard that stands has a small file beside it
in `parts/`; a kill loses the shards in work and nothing else.
"""

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.data.clips import (
    clip_starts,
    ClipSpec,
    field_indices,
    generator_of,
    within,
)
from keras_videofusion.data.files import (
    bytes_of,
    exists,
    is_folder,
    join,
    make_folder,
    names,
    opened,
    read_json,
    remove,
    write_json,
    write_text,
    written,
)
from keras_videofusion.data.flow import Flow, open_flow
from keras_videofusion.data.manifest import (
    CATALOG,
    CLASSES,
    COLUMNS,
    ENDING,
    FORMAT,
    INDEX,
    MANIFEST,
    read_header,
    read_manifest,
    VERSION,
)
from keras_videofusion.data.video import (
    frame_numbers,
    pictures,
    VideoError,
)

PLAN = "plan.json"
PARTS = "parts"
SAMPLERS = ("random", "uniform")
CHROMAS = ("4:2:0", "4:4:4")
RUNNERS = {
    "direct": "DirectRunner",
    "spark": "SparkRunner",
    "flink": "FlinkRunner",
    "dataflow": "DataflowRunner",
}
# Frames of one record where whole videos are stored: some 12 MB.
PART = 1024
# A split has so many shards at least, if it has videos enough: that many are
# read in turn, and so many workers can share them.
SHARDS = 16
FLOW_QUALITY = 95


def prepare(
    catalog: Catalog,
    out: str | os.PathLike,
    spec: ClipSpec | None = None,
    clips: int = 100,
    sampler: str = "random",
    short_side: int = 256,
    quality: int = 85,
    chroma: str = "4:2:0",
    shard_megabytes: int = 128,
    flow: str | os.PathLike | None = None,
    seed: int = 0,
    workers: int | None = None,
    runner: str = "local",
    beam_options: Sequence[str] = (),
    on_error: str = "skip",
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Writes the videos of a catalog as shards.

    Work that was stopped goes on where it was. A folder that is finished is
    checked, by checksums, and what is damaged is written again.

    Args:
        catalog: `Catalog`; its splits go to shards of their own.
        out: Folder or address of the shards.
        spec: `ClipSpec` of the clips to store; None: all frames of every
            video, at a short side of `short_side`, which feed any RGB clip.
        clips: Integer, clips of a video. None is stored twice, so a short
            video gives fewer.
        sampler: `"random"`: drawn by the seed and the video's name;
            `"uniform"`: evenly spread.
        short_side: Integer, pixels, where whole videos are stored.
        quality: Integer, of JPEG, 1 to 100.
        chroma: `"4:2:0"` or `"4:4:4"`: colour at half the size or in full.
        shard_megabytes: Integer, about the size of a shard.
        flow: Where flow comes from, for clips with a flow stream: the folder
            that `videofusion flow` made, or the name of a method.
        seed: Integer, 0 or more.
        workers: Integer, shards at a time; as many as processors if None.
        runner: `"local"`: threads of this process; `"direct"`, `"spark"`,
            `"flink"`, `"dataflow"`: the same work by Apache Beam.
        beam_options: Strings such as `"--job_endpoint=host:8099"`.
        on_error: `"skip"`: a broken video is left out and named; `"raise"`:
            it ends the work.
        overwrite: Whether shards that stand in `out` are replaced.
        progress: Function of the number of videos done, or None.

    Returns:
        Dict, what `manifest.json` says.

    Raises:
        ValueError: If an argument is out of range, if `out` holds something
            else, or if no video could be read.
        VideoError: If a video is broken and `on_error` is `"raise"`.
        ImportError: If the runner needs Apache Beam and it is missing.

    Reference:
        Karpathy et al., CVPR 2014, section 3.3: up to 100 clips of every
        video, frames of 200 x 200.
    """
    _check(
        catalog, clips, sampler, short_side, quality, chroma,
        shard_megabytes, seed, workers, runner, on_error,
    )  # fmt: skip
    source = None
    if spec is not None and "flow" in spec.streams:
        source = open_flow(flow, catalog.root)
    out = os.fspath(out)
    rows = catalog.to_csv()
    recipe: dict[str, Any] = {
        "clip": None if spec is None else spec.to_json(),
        "resize": list(spec.resize if spec else ("short_side", short_side)),
        "clips": None if spec is None else clips,
        "sampler": None if spec is None else sampler,
        "quality": quality,
        "chroma": chroma,
        "flow": source and source.method,
        "shard_megabytes": shard_megabytes,
        "seed": seed,
        "data": _digest_of("\n".join((rows, *catalog.classes))),
    }
    settings = {
        "out": out,
        "root": os.fspath(catalog.root),
        "recipe": recipe,
        "flow": source and source.place,
        "on_error": on_error,
    }
    plan, finished = _stands(out, recipe, overwrite)
    make_folder(join(out, PARTS))
    _sweep(out)
    write_text(join(out, CATALOG), rows)
    write_text(
        join(out, CLASSES), "".join(f"{name}\n" for name in catalog.classes)
    )
    if plan is None:
        plan = {
            "format": FORMAT,
            "version": VERSION,
            "recipe": recipe,
            "videos_per_shard": _videos_per_shard(catalog, settings),
        }
        write_json(join(out, PLAN), plan)
    tasks = _tasks(catalog, settings, plan["videos_per_shard"])
    for entry in finished:
        if _sound(join(out, entry["name"]), entry):
            _keep(out, entry)
    left, done = [], 0
    for task in tasks:
        if _kept(out, task["name"]):
            done += len(task["videos"])
        else:
            left.append(task)
    if runner == "local":
        _locally(left, workers, done, progress)
    elif left:
        _by_beam(left, runner, workers, beam_options)
    if progress:
        progress(len(catalog))
    entries = [_kept(out, task["name"]) for task in tasks]
    return _finish(catalog, out, plan, entries)


def write_shard(task: dict[str, Any]) -> int:
    """Writes one shard and, when it stands, the file that says so.

    It is all that a worker does, on whatever machine: a function of plain
    values.

    Args:
        task: Dict of plain values: name, videos and settings.

    Returns:
        Integer, how many videos the shard was made of.

    Raises:
        VideoError: If a video is broken and that is not to be skipped.
        OSError: If the shard cannot be written.
    """
    source = None
    if task["flow"] is not None:
        source = open_flow(task["flow"], task["root"])
    place = join(task["out"], task["name"])
    entry: dict[str, Any] = {
        "name": task["name"],
        "split": task["split"],
        "records": 0,
        "videos": [],
        "skipped": [],
    }
    try:
        with written(place) as draft:
            with tf.io.TFRecordWriter(str(draft)) as writer:
                for row, video, labels in task["videos"]:
                    video = Video(**{**video, "labels": ()})
                    records, frames = _told(
                        entry, task, row, video, labels, source
                    )
                    count = 0
                    for record in records:
                        writer.write(record)
                        count += 1
                    if count:
                        entry["videos"].append([row, count, frames])
                        entry["records"] += count
            entry["bytes"] = os.path.getsize(draft)
            with open(draft, "rb") as file:
                entry["sha256"] = _digest(file)
    except tf.errors.OpError as error:
        raise OSError(f"{place} cannot be written: {error.message}") from error
    _keep(task["out"], entry)
    return len(task["videos"])


def _told(entry, task, row, video, labels, source):
    """Records of a video and its frames; a broken one is told of instead.

    A video that breaks amid its frames gives no record at all.
    """
    try:
        path = join(task["root"], video.path)
        records, frames = _records(
            path, row, video, labels, task["recipe"], source
        )
        return list(records), frames
    except VideoError as error:
        if task["on_error"] == "raise":
            raise
        entry["skipped"].append({"path": video.path, "error": error.reason})
        return [], 0


def _records(path, row, video, labels, recipe, source):
    """The records of one video, and how many frames it has."""
    common = {
        "video": [row],
        "labels": labels,
        "path": [video.path.encode("utf-8", "surrogateescape")],
    }
    if recipe["clip"] is None:
        return _parts(path, video, recipe, common)
    spec = ClipSpec.from_json(recipe["clip"])
    numbers, times = frame_numbers(path, spec.fps, video.start, video.end)
    starts = _starts(len(numbers), spec, recipe, video)
    features: dict[str, Any] = {}
    if "rgb" in spec.streams:
        inside = starts[:, None] + spec.offsets
        indices = numbers[within(inside, len(numbers), spec.short)]
        jpegs = _jpegs(path, np.unique(indices), recipe)
        features["frames"] = [
            [jpegs[number] for number in clip] for clip in indices.tolist()
        ]
    if source is not None:
        features["flow"] = _flow_jpegs(path, spec, starts, numbers, source)
    return (
        _example(
            **common,
            clip=[clip],
            start=[float(times[numbers[start]])],
            **{name: clips[clip] for name, clips in features.items()},
        )
        for clip, start in enumerate(starts.tolist())
    ), len(numbers)


def _starts(frames, spec, recipe, video):
    """Where the clips of a video begin: no start twice, `(clips,)`."""
    count = min(recipe["clips"], max(1, frames - spec.span + 1))
    if recipe["sampler"] == "uniform":
        return np.unique(clip_starts(frames, spec, "uniform", count))
    name = f"{video.path}#{video.start}-{video.end}"
    generator = generator_of(recipe["seed"], name)
    return generator.choice(
        max(1, frames - spec.span + 1), count, replace=False
    )


def _parts(path, video, recipe, common):
    """Records of all frames of a video: in parts, since it may be long."""
    numbers, times = frame_numbers(path, None, video.start, video.end)
    count = -(-len(numbers) // PART)
    bounds = np.arange(count + 1) * len(numbers) // count

    def parts():
        for part in range(count):
            inside = numbers[bounds[part] : bounds[part + 1]]
            jpegs = _jpegs(path, inside, recipe)
            yield _example(
                **common,
                clip=[part],
                start=[float(times[inside[0]])],
                frames=list(jpegs.values()),
                times=(times[inside] * 1e6).round().astype(int).tolist(),
                first=[int(bounds[part])],
                total=[len(numbers)],
            )

    return parts(), len(numbers)


def _jpegs(path, wanted, recipe) -> dict[int, bytes]:
    """Frames of a video as JPEG, by number; each is encoded once.

    Args:
        path: The video.
        wanted: Int64 array of ascending numbers.
        recipe: Dict of settings.
    """
    found = {}
    for number, pixels in zip(
        wanted.tolist(),
        pictures(path, wanted, tuple(recipe["resize"])),
        strict=True,
    ):
        found[number] = tf.io.encode_jpeg(
            pixels,
            quality=recipe["quality"],
            # A twelfth of the bytes, for a fourth of a millisecond a frame.
            optimize_size=True,
            chroma_downsampling=recipe["chroma"] == "4:2:0",
        ).numpy()
    return found


def _flow_jpegs(path, spec, starts, numbers, source: Flow) -> list[list[bytes]]:
    """Flow of a video's clips, x and y of every field in turn."""
    motions = field_indices(starts, spec, len(numbers))
    # Clips overlap: equal fields are computed and encoded once.
    unique, places = np.unique(
        motions.reshape(-1, motions.shape[-1]), axis=0, return_inverse=True
    )
    pairs = []
    for begin in range(0, len(unique), 64):
        some = unique[begin : begin + 64]
        (fields,) = source(path, numbers, some[None], spec.resize)
        for field in fields:
            pairs.append(
                [
                    tf.io.encode_jpeg(
                        field[..., axis : axis + 1],
                        quality=FLOW_QUALITY,
                        optimize_size=True,
                    ).numpy()
                    for axis in range(2)
                ]
            )
    return [
        [jpeg for place in clip for jpeg in pairs[place]]
        for clip in places.reshape(motions.shape[:2]).tolist()
    ]


def _example(**features) -> bytes:
    """A `tf.train.Example`; the same values make the same bytes."""
    kinds = {
        bytes: lambda v: tf.train.Feature(bytes_list={"value": v}),
        float: lambda v: tf.train.Feature(float_list={"value": v}),
        int: lambda v: tf.train.Feature(int64_list={"value": v}),
    }
    found = {
        name: kinds[type(values[0])](values)
        for name, values in features.items()
        if values
    }
    return tf.train.Example(
        features=tf.train.Features(feature=found)
    ).SerializeToString(deterministic=True)


# Plan, parts, manifest.


def _videos_per_shard(catalog, settings) -> int:
    """How many videos make a shard of about the size that is asked for.

    A few videos are encoded to learn what one takes.
    """
    order = np.random.default_rng(settings["recipe"]["seed"])
    sizes = []
    for row in order.permutation(len(catalog))[:8].tolist():
        video = catalog[row]
        try:
            records, _ = _records(
                catalog.file(video), row, video, [], settings["recipe"],
                settings["flow"] and open_flow(settings["flow"], catalog.root),
            )  # fmt: skip
            sizes.append(sum(map(len, records)))
        except VideoError:
            continue
    size = settings["recipe"]["shard_megabytes"] * 1e6
    return max(1, int(size / np.mean(sizes))) if sizes else SHARDS


def _tasks(catalog, settings, videos_per_shard) -> list[dict[str, Any]]:
    """What `write_shard` is called with, once for every shard."""
    number = {name: place for place, name in enumerate(catalog.classes)}
    splits: dict[str, list[int]] = {}
    for row, video in enumerate(catalog):
        splits.setdefault(_name_of(video.split), []).append(row)
    tasks = []
    for split, rows in sorted(splits.items()):
        generator = generator_of(settings["recipe"]["seed"], split)
        order = np.array(rows)[generator.permutation(len(rows))]
        least = min(SHARDS, len(rows))
        count = max(least, -(-len(rows) // videos_per_shard))
        for place, some in enumerate(np.array_split(order, count)):
            videos = []
            for row in some.tolist():
                video = catalog[row]
                plain = {
                    "path": video.path,
                    "start": video.start,
                    "end": video.end,
                }
                labels = [number[label] for label in video.labels]
                videos.append([row, plain, labels])
            tasks.append(
                {
                    **settings,
                    "name": f"{split}-{place:05}{ENDING}",
                    "split": split,
                    "videos": videos,
                }
            )
    return tasks


def _name_of(split: str | None) -> str:
    """What the shards of a split are called."""
    if split is None:
        return "unmarked"
    return split if re.fullmatch("[a-z0-9_]+", split) else "other"


def _stands(out, recipe, overwrite):
    """What an earlier call left in the folder: its plan, finished shards.

    Raises:
        ValueError: If it was called with other settings, or if the folder
            holds something that is not of shards.
    """
    if overwrite and is_folder(out):
        # The manifest first: without it the folder is none of shards.
        for name in sorted(filter(_ours, names(out)), key=MANIFEST.__ne__):
            remove(join(out, name))
    before = read_manifest(out)
    plan, finished = None, []
    if before is not None:
        plan = read_json(join(out, MANIFEST))
        finished = [
            _entry(before, place) for place in range(len(plan["shards"]))
        ]
        plan = {
            name: plan[name]
            for name in ("format", "version", "recipe", "videos_per_shard")
        }
    elif exists(join(out, PLAN)):
        plan = read_json(join(out, PLAN))
    elif is_folder(out):
        foreign = [name for name in names(out) if not _ours(name)]
        if foreign:
            raise ValueError(
                f"{out} is not empty and holds no shards: pass another "
                f"folder. Received: {foreign[0]} in it"
            )
    if plan is not None and plan["recipe"] != recipe:
        changed = ", ".join(
            f"{name}={value!r} (was {plan['recipe'].get(name)!r})"
            for name, value in recipe.items()
            if value != plan["recipe"].get(name)
        )
        raise ValueError(
            f"{out} holds shards of other settings: pass --overwrite to "
            f"replace them, or another folder. Received: {changed}"
        )
    return plan, finished


def _ours(name: str) -> bool:
    """Whether a name in a folder of shards is one that `prepare` gives."""
    return (
        name in (MANIFEST, CATALOG, CLASSES, INDEX, PLAN, PARTS)
        or name.startswith(".draft-")
        or bool(re.fullmatch(rf"\w+-\d{{5,}}{re.escape(ENDING)}", name))
    )


def _entry(manifest, place) -> dict[str, Any]:
    """What `write_shard` said of a shard, from a finished manifest."""
    shard = manifest.shards[place]
    mine = manifest.index[manifest.index[:, 0] == place]
    return {
        **{key: shard[key] for key in ("name", "split", "records")},
        "videos": mine[:, 1:].tolist(),
        "skipped": [
            {key: row[key] for key in ("path", "error")}
            for row in manifest.skipped
            if row["shard"] == shard["name"]
        ],
        **{key: shard[key] for key in ("bytes", "sha256")},
    }


def _sound(place, entry) -> bool:
    """Whether a shard is there, with the bytes that it was written with."""
    if not exists(place):
        return False
    with opened(place) as file:
        return _digest(file) == entry["sha256"]


def _part(out, name) -> str:
    return join(out, PARTS, f"{name}.json")


def _keep(out, entry) -> None:
    write_json(_part(out, entry["name"]), entry)


def _kept(out, name) -> dict[str, Any] | None:
    """What is known of a shard that stands; None: it must be written."""
    if not exists(_part(out, name)) or not exists(join(out, name)):
        return None
    entry = read_json(_part(out, name))
    return entry if bytes_of(join(out, name)) == entry["bytes"] else None


def _finish(catalog, out, plan, entries) -> dict[str, Any]:
    """Writes index and manifest, and removes what only the work needed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    shards, skipped = [], []
    for place, entry in enumerate(entries):
        writer.writerows([place, *video] for video in entry["videos"])
        skipped += [
            {**row, "shard": entry["name"]} for row in entry.pop("skipped")
        ]
        shards.append({**entry, "videos": len(entry["videos"])})
    if len(skipped) == len(catalog):
        raise ValueError(
            f"none of the {len(catalog)} videos could be read; the first: "
            f"{skipped[0]['path']}: {skipped[0]['error']}"
        )
    write_text(join(out, INDEX), text.getvalue())
    manifest = {
        **plan,
        "source": os.fspath(catalog.root),
        "classes": list(catalog.classes),
        "videos": sum(shard["videos"] for shard in shards),
        "records": sum(shard["records"] for shard in shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "skipped": skipped,
        "sha256": {
            name: _digest_of_file(join(out, name))
            for name in (CATALOG, CLASSES, INDEX)
        },
        "shards": shards,
    }
    write_json(join(out, MANIFEST), manifest)
    remove(join(out, PLAN))
    remove(join(out, PARTS))
    return manifest


def _digest(file) -> str:
    digest = hashlib.sha256()
    for part in iter(partial(file.read, 1 << 20), b""):
        digest.update(part)
    return digest.hexdigest()


def _digest_of_file(place) -> str:
    with opened(place) as file:
        return _digest(file)


def _digest_of(text: str) -> str:
    data = text.encode("utf-8", "surrogateescape")
    return hashlib.sha256(data).hexdigest()


def _sweep(out) -> None:
    """Removes what processes that are no more left half written."""
    for folder in (out, join(out, PARTS)):
        for name in names(folder):
            owner = re.match(r"\.draft-(\d+)-", name)
            try:
                if owner:
                    os.kill(int(owner[1]), 0)
            except ProcessLookupError:
                remove(join(folder, name))
            except PermissionError:
                continue


# Who does the work.


def _locally(tasks, workers, done, progress) -> None:
    """Threads: decoders and encoders let go of the interpreter."""
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        for count in pool.map(write_shard, tasks):
            done += count
            if progress:
                progress(done)
    finally:
        pool.shutdown(cancel_futures=True)


def _by_beam(tasks, runner, workers, options: Sequence[str]) -> None:
    """The same function of the same tasks as an Apache Beam pipeline."""
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ImportError(
            f"--runner {runner} needs Apache Beam: "
            "pip install 'keras-videofusion[beam]'"
        ) from error
    flags = [f"--runner={RUNNERS[runner]}"]
    if runner == "direct":
        flags += [
            "--direct_running_mode=multi_processing",
            f"--direct_num_workers={workers or os.cpu_count()}",
        ]
    with beam.Pipeline(options=PipelineOptions([*flags, *options])) as line:
        _ = (
            line
            | "shards" >> beam.Create(tasks)
            # Else one worker would be handed them all.
            | "spread" >> beam.Reshuffle()
            | "write" >> beam.Map(write_shard)
        )


def _check(
    catalog, clips, sampler, short_side, quality, chroma, shard_megabytes,
    seed, workers, runner, on_error,
):  # fmt: skip
    if not len(catalog):
        raise ValueError("`catalog` has no videos.")
    made = read_header(catalog.root)
    if made is not None:
        what = made["format"].rpartition(" ")[2]
        raise ValueError(
            f"{catalog.root} holds {what} already: prepare takes videos."
        )
    for name, value, least in (
        ("clips", clips, 1),
        ("short_side", short_side, 1),
        ("shard_megabytes", shard_megabytes, 1),
        ("seed", seed, 0),
        ("workers", workers, 1),
    ):
        if value is not None and value < least:
            raise ValueError(
                f"`{name}` must be {least} or more. Received: {name}={value}"
            )
    if not 1 <= quality <= 100:
        raise ValueError(
            f"`quality` must be 1 to 100. Received: quality={quality}"
        )
    for name, value, known in (
        ("sampler", sampler, SAMPLERS),
        ("chroma", chroma, CHROMAS),
        ("runner", runner, ("local", *RUNNERS)),
        ("on_error", on_error, ("skip", "raise")),
    ):
        if value not in known:
            raise ValueError(
                f"`{name}` must be one of {', '.join(known)}. "
                f"Received: {name}={value!r}"
            )
