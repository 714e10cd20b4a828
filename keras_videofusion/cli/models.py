"""`videofusion models`."""

from keras_videofusion.cli.flags import json_flag, verb_parser
from keras_videofusion.cli.output import give


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "models",
        models,
        "list the networks: clip, parameters, multiply-adds, weights",
        ("", "--json models.json"),
    )
    json_flag(parser)


def models(arguments):
    """`videofusion models`."""
    from keras_videofusion.applications import clip_spec, costs_table

    rows = costs_table()
    if arguments.json:
        give(rows, arguments.json)
    if arguments.json == "-":
        return
    width = max(len(row["name"]) for row in rows)
    print(
        f"{'name':<{width}}  frames     size  streams     parameters     GMACs"
        "  weights"
    )
    for row in rows:
        size = "x".join(map(str, row["size"]))
        streams = "+".join(clip_spec(row["name"]).streams)
        print(
            f"{row['name']:<{width}}  {row['frames'] or '-':>6}  "
            f"{size:>7}  {streams:<8}  "
            f"{row['parameters']:>12,}  "
            f"{row['macs'] / 1e9:>8.3f}  {', '.join(row['weights']) or '-'}"
        )
