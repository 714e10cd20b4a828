"""`videofusion evaluate`."""

from keras_videofusion.cli.flags import (
    data_flags,
    error_flag,
    flow_flag,
    json_flag,
    MODEL,
    open_data,
    scoring_flags,
    verb_parser,
)
from keras_videofusion.cli.output import give, printable, Progress, share


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "evaluate",
        evaluate,
        "score a network by the paper's protocol",
        (
            "runs/first",
            "runs/first --clips 20 --passes 4 --json metrics.json",
            "runs/first other_videos/ --split all",
            "runs/baseline other_histograms/",
        ),
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    data_flags(parser, optional=True)
    parser.add_argument(
        "--split",
        default="test",
        help="rows to score: test, validation, or all, which scores rows that "
        "were trained on too (default: test)",
    )
    flow_flag(parser, "default: the run's own; else computed, by dis")
    scoring_flags(parser)
    error_flag(parser)
    json_flag(parser)


def evaluate(arguments):
    """`videofusion evaluate`."""
    from keras_videofusion.training.evaluate import (
        describe_of,
        evaluate,
        flow_of,
        rows_of,
    )
    from keras_videofusion.training.run import open_model

    opened = open_model(arguments.model)
    given = open_data(arguments) if arguments.data else None
    catalog = rows_of(opened, given, arguments.split)
    metrics = evaluate(
        opened,
        catalog,
        clips=arguments.clips,
        passes=arguments.passes,
        batch=arguments.batch,
        seed=arguments.seed,
        on_error=arguments.on_error,
        flow=arguments.flow or flow_of(opened, given),
        describe=describe_of(opened, given),
        progress=Progress(len(catalog), "videos"),
    )
    if arguments.json:
        give(metrics, arguments.json)
    if arguments.json == "-":
        return
    for skipped in metrics["skipped"]:
        print(printable(f"skipped {skipped['path']}: {skipped['error']}"))
    print(
        f"{metrics['videos']} videos, {metrics['clips']} clips, "
        f"{len(metrics['skipped'])} skipped\n"
        f"clip Hit@1   {share(metrics['clip_hit_at_1'])}\n"
        f"video Hit@1  {share(metrics['video_hit_at_1'])}\n"
        f"video Hit@5  {share(metrics['video_hit_at_5'])}\n"
        f"mAP          {share(metrics['mean_average_precision'])}"
    )
    for title, part in (("class", "per_class"), ("family", "per_family")):
        if metrics[part]:
            width = max(len(printable(name)) for name in metrics[part])
            print(f"\n{title:<{width}}  videos   Hit@1      AP")
        for name, row in metrics[part].items():
            print(
                f"{printable(name):<{width}}  {row['videos']:>6} "
                f"{share(row['hit_at_1']):>8} "
                f"{share(row['average_precision']):>8}"
            )
