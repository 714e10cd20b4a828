"""`videofusion report`."""

import os

from keras_videofusion.cli.flags import verb_parser


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "report",
        report,
        "write a page with tables and pictures of runs",
        ("runs/first runs/second --out runs",),
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run's folder")
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder of report.html"
    )


def report(arguments):
    """`videofusion report`."""
    from keras_videofusion.data.files import absolute
    from keras_videofusion.evaluation.report import write_report
    from keras_videofusion.training.run import Run, RunError

    runs = {}
    for folder in arguments.runs:
        run = Run(folder)
        if not run.exists:
            raise RunError(f"{folder} is not a run's folder.")
        name = os.path.basename(absolute(run.folder).rstrip("/"))
        while name in runs:
            name = f"{name}'"
        runs[name] = run.folder
    print(write_report(runs, arguments.out))
