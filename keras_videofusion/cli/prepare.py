"""`videofusion prepare`."""

import sys
from pathlib import Path

from keras_videofusion.cli.flags import (
    CallError,
    data_flags,
    error_flag,
    expect_model,
    flow_flag,
    json_flag,
    open_data,
    positive,
    verb_parser,
)
from keras_videofusion.cli.output import give, printable, Progress


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "prepare",
        prepare,
        "write videos as shards of JPEG clips, or youtube8m as vectors, to "
        "train from at scale",
        (
            "videos/ shards/ --model slow_fusion",
            "list.csv shards/ --model i3d --clips 20 --workers 8",
            "videos/ frames/ --all-frames --short-side 256",
            "youtube8m vectors/ --root DIR && videofusion train vectors/ "
            "--model feature_mlp --option scale=null --activation sigmoid "
            "--run runs/yt8m",
            "gs://bucket/list.csv gs://bucket/shards --runner dataflow "
            "--beam-option=--project=NAME --beam-option=--region=europe-west1",
        ),
    )
    data_flags(parser)
    parser.add_argument(
        "out",
        metavar="OUT",
        help="folder or address of the shards. Work that was stopped goes on "
        "where it was; a finished folder is checked and mended",
    )
    clip = parser.add_argument_group("what is stored")
    clip.add_argument(
        "--model",
        metavar="NAME",
        help="clips as this network needs them "
        "(default: 16 frames of 200 x 200, to be cropped to 170 x 170)",
    )
    clip.add_argument(
        "--frames", metavar="INT", type=positive, help="frames of a clip"
    )
    clip.add_argument(
        "--step",
        metavar="INT",
        type=positive,
        help="frames of the video from one of the clip to the next",
    )
    clip.add_argument(
        "--fps",
        metavar="FLOAT",
        type=float,
        help="frames per second to count in; 0: the video's own rate",
    )
    clip.add_argument(
        "--size",
        metavar="INT",
        type=positive,
        help="side of the crop that the network eats; frames are stored in "
        "proportion larger",
    )
    clip.add_argument(
        "--clips",
        metavar="INT",
        type=positive,
        default=100,
        help="clips of a video, none of them twice (default: 100)",
    )
    clip.add_argument(
        "--sampler",
        choices=("random", "uniform"),
        default="random",
        help="where clips begin (default: random)",
    )
    clip.add_argument(
        "--all-frames",
        action="store_true",
        help="whole videos instead of clips; they feed every RGB network",
    )
    clip.add_argument(
        "--short-side",
        metavar="INT",
        type=positive,
        default=256,
        help="of the frames of whole videos (default: 256)",
    )
    clip.add_argument(
        "--quality",
        metavar="INT",
        type=int,
        default=85,
        help="of JPEG, 1 to 100 (default: 85)",
    )
    clip.add_argument(
        "--chroma",
        choices=("4:2:0", "4:4:4"),
        default="4:2:0",
        help="colour at half the size, or in full (default: 4:2:0)",
    )
    flow_flag(clip, "needed by such networks")
    clip.add_argument(
        "--seed",
        metavar="INT",
        type=int,
        default=0,
        help="seed of clips and of the order of videos (default: 0)",
    )
    work = parser.add_argument_group("how")
    work.add_argument(
        "--shard-size",
        metavar="MB",
        type=positive,
        default=128,
        help="about the size of a shard (default: 128)",
    )
    work.add_argument(
        "--workers",
        metavar="INT",
        type=positive,
        help="shards at a time (default: as many as processors)",
    )
    work.add_argument(
        "--runner",
        # `keras_videofusion.data.prepare.RUNNERS`, which loads TensorFlow.
        choices=("local", "direct", "spark", "flink", "dataflow"),
        default="local",
        help="who works: this process, or a runner of Apache Beam "
        "(default: local)",
    )
    work.add_argument(
        "--beam-option",
        dest="beam_options",
        metavar="OPTION",
        action="append",
        default=[],
        help="an option of the runner, such as "
        "--beam-option=--job_endpoint=host:8099; may be repeated",
    )
    work.add_argument(
        "--overwrite",
        action="store_true",
        help="replace shards of other settings that stand in OUT",
    )
    error_flag(work)
    json_flag(parser)


def prepare(arguments):
    """`videofusion prepare`."""
    from keras_videofusion.data.prepare import prepare

    if arguments.data == "youtube8m" and not Path("youtube8m").exists():
        return _youtube8m(arguments)
    spec = None if arguments.all_frames else _clip(arguments)
    catalog = open_data(arguments)
    found = prepare(
        catalog,
        arguments.out,
        spec,
        clips=arguments.clips,
        sampler=arguments.sampler,
        short_side=arguments.short_side,
        quality=arguments.quality,
        chroma=arguments.chroma,
        shard_megabytes=arguments.shard_size,
        flow=arguments.flow,
        seed=arguments.seed,
        workers=arguments.workers,
        runner=arguments.runner,
        beam_options=arguments.beam_options,
        on_error=arguments.on_error,
        overwrite=arguments.overwrite,
        progress=Progress(len(catalog), "videos"),
    )
    for row in found["skipped"]:
        line = f"skipped {row['path']}: {row['error']}"
        print(printable(line), file=sys.stderr)
    if arguments.json:
        give(found, arguments.json)
    if arguments.json != "-":
        print(
            f"{found['videos']} videos, {found['records']} "
            f"{'parts' if arguments.all_frames else 'clips'}, "
            f"{len(found['skipped'])} skipped; {len(found['shards'])} shards "
            f"of {found['bytes'] / 1e6:.1f} MB in all, in "
            f"{printable(arguments.out)}"
        )
    return 1 if found["skipped"] else 0


def _youtube8m(arguments):
    """Writes vectors: there are no videos to be cut."""
    from keras_videofusion.datasets.youtube8m import vectors

    if arguments.root is None or arguments.data_options:
        raise CallError(
            "youtube8m needs --root, the folder that it lies in, and takes no "
            f"--data-option. Received: --root {arguments.root}"
        )
    # How many there are is known once their labels are read.
    progress = None

    def done(count, videos):
        nonlocal progress
        progress = progress or Progress(videos, "videos")
        progress(count)

    found = vectors(
        arguments.root,
        arguments.out,
        overwrite=arguments.overwrite,
        on_skip=lambda path, reason: print(
            printable(f"skipped {path}: {reason}"), file=sys.stderr
        ),
        progress=done,
    )
    if arguments.json:
        told = {"videos": len(found), "size": found.size}
        give({**told, "skipped": found.skipped}, arguments.json)
    if arguments.json != "-":
        print(
            f"{len(found)} vectors of {found.size:,} numbers, "
            f"{len(found.skipped)} skipped, in {printable(arguments.out)}"
        )
    return 1 if found.skipped else 0


def _clip(arguments):
    """The clip to store: a network's, with what the flags change of it."""
    from keras_videofusion.data.clips import ClipSpec
    from keras_videofusion.data.vectors import VectorSpec
    from keras_videofusion.training.build import clip_of
    from keras_videofusion.training.recipe import Recipe

    changes = {
        name: getattr(arguments, name)
        for name in ("frames", "step", "fps", "size")
        if getattr(arguments, name) is not None
    }
    try:
        if arguments.model is not None:
            expect_model(arguments.model)
            found = clip_of(Recipe(model=arguments.model, **changes))
            if isinstance(found, VectorSpec):
                raise ValueError(
                    "prepare writes clips, and vectors of youtube8m alone: of "
                    "videos, videofusion histograms does. "
                    f"Received: --model {arguments.model}"
                )
            return found
        size = changes.pop("size", None)
        changes["fps"] = changes.get("fps") or None
        spec = ClipSpec(**{"frames": 16, **changes})
        return spec if size is None else spec.with_size(size)
    except ValueError as error:
        raise CallError(str(error)) from error
