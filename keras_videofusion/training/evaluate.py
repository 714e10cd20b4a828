"""Scores a trained network on rows that it has not learned."""

from keras_videofusion.data.catalog import Catalog
from keras_videofusion.data.files import absolute, write_json
from keras_videofusion.data.vectors import read_vectors, VectorSpec
from keras_videofusion.evaluation import metrics, protocol
from keras_videofusion.training.run import RunError


def rows_of(opened, given=None, split="test"):
    """The rows to score, none of which the network was trained on.

    Args:
        opened: What `keras_videofusion.training.run.open_model` returned.
        given: `Catalog` of the caller's, or None for the run's own rows.
        split: "test", "validation" or "all". The run's test rows are its
            held-out ones; where it has none, its validation rows are.
            A catalog of the caller's is filtered by its own splits if it has
            any, else scored whole.

    Returns:
        `Catalog` with the network's classes.

    Raises:
        RunError: If a row was trained on and `split` is not "all", if the
            classes differ, or if no row is left.
    """
    run = opened.run
    if given is None:
        if run is None:
            raise RunError(
                "DATA is needed: only a run's folder knows its own held-out "
                "rows."
            )
        own = run.catalog()
        rows = own if split == "all" else own.where(split)
        if split == "test" and not len(rows):
            rows = own.where("validation")
    else:
        rows = given.with_classes(opened.classes)
        if split != "all" and any(video.split for video in rows):
            rows = rows.where(split)
    if not len(rows):
        raise RunError(
            "no rows to score. "
            f"Received: split={split!r}; use --split all to score every row"
        )
    if run is not None and split != "all":
        _refuse_learned(run, rows)
    return rows


def _refuse_learned(run, rows):
    """Raises `RunError` if a row was trained on, wherever its file now is."""
    learned = run.catalog().where("train")
    names = {video.path for video in learned}
    files = {absolute(learned.file(video)) for video in learned}
    seen = [
        video.path
        for video in rows
        if video.path in names or absolute(rows.file(video)) in files
    ]
    if seen:
        raise RunError(
            f"{len(seen)} of {len(rows)} rows were trained on, the first is "
            f"{seen[0]}: their scores would say nothing. Pass --split all to "
            "score them all the same, or no DATA to score the held-out rows."
        )


def flow_of(opened, given=None):
    """Where the flow of rows to score comes from, if the caller says nothing.

    The run's own rows have the flow that it learned from. Of other videos
    flow is computed as they are read, by the method that the run learned from.

    Args:
        opened: What `keras_videofusion.training.run.open_model` returned.
        given: The caller's videos, or None for the run's own rows.

    Returns:
        Folder or name of a method; None where that is not known.
    """
    if opened.run is None:
        return None
    return opened.run.flow if given is None else opened.run.flow_method


def describe_of(opened, given=None):
    """What makes the vectors of videos, if a network needs them made.

    Args:
        opened: What `keras_videofusion.training.run.open_model` returned.
        given: The caller's videos: a `Catalog`, or paths; or None for the
            run's own rows.

    Returns:
        Function of (path, start, end) to a float32 array of shape `(1,
        size)`; None for a network of clips, or where the vectors stand in a
        folder already.

    Raises:
        RunError: If its vectors are not histograms, or the run has no
            codebooks to make some by.
    """
    if not isinstance(opened.spec, VectorSpec) or given is None:
        return None
    if isinstance(given, Catalog) and read_vectors(given.root) is not None:
        return None
    place = opened.run and opened.run.codebooks
    if place is None:
        kind = opened.run and (opened.run.settings.get("vectors") or {})
        raise RunError(
            "a network of vectors reads videos by the codebooks of their "
            "histograms, and there are none here. Received: a "
            f"{'run on ' + kind['kind'] if kind else 'network without run'}"
        )
    from keras_videofusion.baseline import histograms

    codebooks = histograms.load_codebooks(opened.run.folder)

    def describe(path, start, end):
        return histograms.vector_of(path, codebooks, start, end)[None]

    return describe


def evaluate(opened, catalog, progress=None, **protocol_arguments):
    """Scores a network and, if it came from a run, keeps the scores there.

    Args:
        opened: What `keras_videofusion.training.run.open_model` returned.
        catalog: `Catalog` to score, from `rows_of`.
        progress: Function of the number of videos done, or None.
        **protocol_arguments: `clips`, `passes`, `batch`, `seed`, `on_error`,
            `flow` and `describe` of
            `keras_videofusion.evaluation.protocol.score`.

    Returns:
        Dict, the object of `metrics.json`.
    """
    scores, skipped = protocol.score(
        opened.model,
        catalog,
        opened.spec,
        progress=progress,
        **protocol_arguments,
    )
    found = metrics.summary(scores, catalog.families, skipped)
    if opened.run is not None:
        scores.save(opened.run.path("scores.npz"))
        write_json(opened.run.path("metrics.json"), found)
    return found
