"""`videofusion benchmark`."""

from keras_videofusion.cli.flags import (
    cache_flag,
    CallError,
    expect_model,
    flow_flag,
    json_flag,
    positive,
    verb_parser,
)
from keras_videofusion.cli.output import give


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "benchmark",
        benchmark,
        "measure clips per second of networks and of the input pipeline",
        (
            "--model slow_fusion --width 0.25",
            "--pipeline videos/ --model slow_fusion",
            "--pipeline shards/ --cache pixels",
            "--pipeline histograms/ --model feature_mlp",
        ),
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        action="append",
        help="network; may be repeated (default: slow_fusion)",
    )
    parser.add_argument(
        "--pipeline",
        metavar="DATA",
        help="measure reading these videos or shards too, and name the "
        "bottleneck",
    )
    flow_flag(parser, "needed by such networks with --pipeline")
    cache_flag(parser)
    parser.add_argument(
        "--task",
        choices=("train", "infer", "both"),
        default="both",
        help="what to measure of the network (default: both)",
    )
    parser.add_argument("--width", metavar="FLOAT", type=float, default=1.0)
    parser.add_argument("--batch", metavar="INT", type=positive, default=16)
    parser.add_argument("--steps", metavar="INT", type=positive, default=10)
    json_flag(parser)


def benchmark(arguments):
    """`videofusion benchmark`."""
    from keras_videofusion import benchmark as bench
    from keras_videofusion.applications import clip_spec
    from keras_videofusion.data.catalog import open_catalog
    from keras_videofusion.data.files import exists
    from keras_videofusion.data.vectors import read_vectors
    from keras_videofusion.training.build import clip_of
    from keras_videofusion.training.recipe import Recipe

    names = arguments.model or ["slow_fusion"]
    for name in names:
        expect_model(name)
    tasks = {"both": ("infer", "train")}.get(arguments.task, (arguments.task,))
    catalog = None
    if arguments.pipeline:
        try:
            catalog = open_catalog(arguments.pipeline)
        except FileNotFoundError as error:
            raise CallError(str(error)) from error
    vectors = read_vectors(catalog.root) if catalog else None
    rows, verdicts = [], []
    if catalog and not vectors and exists(catalog.file(catalog[0])):
        # Shards bring no files to decode.
        rows += bench.benchmark_decoding(catalog, clip_spec(names[0]))
    for name in names:
        networks = [
            bench.benchmark_network(
                name,
                arguments.batch,
                arguments.steps,
                task,
                width=arguments.width,
            )
            for task in tasks
        ]
        rows += networks
        if catalog is not None:
            pipeline = bench.benchmark_pipeline(
                catalog,
                clip_of(Recipe(model=name), vectors),
                arguments.batch,
                arguments.steps,
                arguments.flow,
                arguments.cache,
            )
            rows.append({**pipeline, "name": f"pipeline for {name}"})
            verdicts += [bench.bottleneck(row, pipeline) for row in networks]
    if arguments.json:
        give(rows, arguments.json)
    if arguments.json == "-":
        return
    for row in rows:
        line = (
            f"{row['name']:<32} {row['task']:<6} "
            f"{row['clips_per_second']:>9.1f} clips per second"
        )
        if "clips_per_core_second" in row:
            line += f", {row['clips_per_core_second']:.1f} per core"
        if "ratio" in row:
            line += f" and core, {1 / row['ratio']:.2f} of ours"
        print(line)
    for verdict in verdicts:
        print(verdict)
