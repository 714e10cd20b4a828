"""Which videos there are, what they show, and which of them may be learned."""

import codecs
import csv
import io
import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from keras_videofusion.data.files import (
    exists,
    is_folder,
    is_remote,
    join,
    read_text,
    write_text,
)
from keras_videofusion.data.manifest import CATALOG, read_header
from keras_videofusion.data.video import video_files

COLUMNS = ("path", "label", "group", "family", "split", "start", "end")
LABELS_FILE = "labels.csv"


@dataclass(frozen=True, slots=True)
class Video:
    """A row of a catalog: a file, or a segment of one.

    Args:
        path: String, relative to the catalog's root or absolute; a relative
            one may climb out of the root (`../far/1.mp4`).
        labels: Tuple of class names; more than one if it shows several.
        group: Name of the recording that it was cut from; it never straddles
            a split. None: it is a recording of its own.
        family: Family of its class (Sports, Playing Instruments ...) or None.
        split: "train", "validation", "test", or None.
        start: Float, seconds, or None for the beginning.
        end: Float, seconds, or None for the end.
    """

    path: str
    labels: tuple[str, ...]
    group: str | None = None
    family: str | None = None
    split: str | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Catalog:
    """Videos and the classes that they are told apart by.

    Args:
        videos: Tuple of `Video`.
        classes: Tuple of class names; a label's number is its place here.
        root: Folder to which the videos' paths are relative.
        missing: Paths that a data set's lists name and that are not there;
            they have no rows.

    Raises:
        ValueError: If a video has a label that is not among the classes.
    """

    videos: tuple[Video, ...]
    classes: tuple[str, ...]
    root: str
    missing: tuple[str, ...] = ()

    def __post_init__(self):
        known = set(self.classes)
        for video in self.videos:
            unknown = [label for label in video.labels if label not in known]
            if unknown:
                raise ValueError(
                    f"{video.path} has a label that is not among the "
                    f"{len(known)} classes. Received: label={unknown[0]!r}"
                )

    def __len__(self) -> int:
        return len(self.videos)

    def __iter__(self) -> Iterator[Video]:
        return iter(self.videos)

    def __getitem__(self, index) -> Video:
        return self.videos[index]

    def file(self, video: Video) -> str:
        """Where a video's file lies.

        Args:
            video: `Video`.

        Returns:
            Path; the video's own if that is absolute.
        """
        return join(self.root, video.path)

    @property
    def truth(self) -> np.ndarray:
        """Boolean array of shape `(videos, classes)`."""
        return self.truth_of(np.arange(len(self)))

    def truth_of(self, rows) -> np.ndarray:
        """What some videos show.

        Args:
            rows: Integers of shape `(rows,)`, places of videos.

        Returns:
            Boolean array of shape `(rows, classes)`.
        """
        numbers, begins = self.numbers
        truth = np.zeros((len(rows), len(self.classes)), bool)
        for shown, row in zip(truth, rows, strict=True):
            shown[numbers[begins[row] : begins[row + 1]]] = True
        return truth

    @property
    def targets(self) -> np.ndarray:
        """What a softmax learns: float32 of shape `(videos, classes)`.

        A row is uniform over the video's true classes.
        """
        truth = self.truth
        return (truth / truth.sum(1, keepdims=True)).astype(np.float32)

    def target(self, row: int) -> np.ndarray:
        """What a softmax learns of one video.

        Args:
            row: Integer, the place of the video.

        Returns:
            Float32 array of shape `(classes,)`, uniform over its classes.
        """
        (truth,) = self.truth_of([row])
        return (truth / truth.sum()).astype(np.float32)

    @cached_property
    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of all labels, row after row, and where each row begins.

        A table of a million videos and 487 classes would take two gigabytes.
        """
        number = {name: place for place, name in enumerate(self.classes)}
        counts = [len(video.labels) for video in self]
        numbers = np.fromiter(
            (number[label] for video in self for label in video.labels),
            np.int32,
            sum(counts),
        )
        return numbers, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    @property
    def families(self) -> dict[str, str]:
        """The family of every class that has one."""
        return {
            label: video.family
            for video in self.videos
            if video.family
            for label in video.labels
        }

    def where(self, split: str) -> "Catalog":
        """The rows of one split, with the same classes.

        Args:
            split: String.

        Returns:
            `Catalog`, perhaps without rows.
        """
        return self._with(video for video in self if video.split == split)

    def with_classes(self, classes: Sequence[str]) -> "Catalog":
        """The same rows, their labels numbered as another catalog's.

        Args:
            classes: Class names.

        Returns:
            `Catalog`.

        Raises:
            ValueError: If a row has a label that is not among them.
        """
        return replace(self, classes=tuple(classes))

    def relabelled(
        self, labels: Sequence[str], classes: Sequence[str]
    ) -> "Catalog":
        """The same rows with one other label each.

        Args:
            labels: A class name per row.
            classes: Class names.

        Returns:
            `Catalog`.
        """
        return replace(
            self,
            videos=tuple(
                replace(video, labels=(label,))
                for video, label in zip(self, labels, strict=True)
            ),
            classes=tuple(classes),
        )

    def hold_out(
        self, share: float, seed: int = 0, split: str = "test"
    ) -> "Catalog":
        """Marks a share of the rows, whole groups at a time.

        Groups are taken in an order drawn from the seed, always the one that
        brings the marked rows of every class nearest to the share. Every
        class has rows on both sides if its groups permit.

        Args:
            share: Float in (0, 1).
            seed: Integer.
            split: String to mark them with; the other rows keep theirs.

        Returns:
            `Catalog` with the same rows in the same order. At least one group
            is marked and one is not.

        Raises:
            ValueError: If the share is out of range or there is one group.
        """
        if not 0 < share < 1:
            raise ValueError(
                f"`share` must be between 0 and 1. Received: share={share}"
            )
        names, member, counts = self._groups()
        if len(names) < 2:
            raise ValueError(
                "a split needs two groups or more, since a group never "
                "straddles one; name them with a `group` column or "
                f"--group-pattern. Received: {len(names)} group of "
                f"{len(self)} videos"
            )
        total = counts.of_all

        def cost(marked):
            """Classes that a side lacks; then the distance to the share."""
            lacking = (marked == 0) | (marked == total)
            miss = np.square(marked - share * total).sum(-1)
            return lacking[..., total > 0].sum(-1), miss

        order = iter(
            np.random.default_rng([seed, len(names)]).permutation(len(names))
        )
        # A few dozen candidates even the classes out; all of a million
        # groups at every step would take days.
        near = list(itertools.islice(order, 64))
        shown = counts.of(near)
        chosen: set[int] = set()
        marked = np.zeros_like(total)
        while len(chosen) < len(names) - 1:
            lacking, miss = cost(marked + shown)
            best = np.lexsort((miss, lacking))[0]
            if chosen and (lacking[best], miss[best]) >= cost(marked):
                break
            chosen.add(int(near.pop(best)))
            marked = marked + shown[best]
            following = list(itertools.islice(order, 1))
            near += following
            shown = np.concatenate(
                [np.delete(shown, best, 0), counts.of(following)]
            )
        return self._with(
            replace(video, split=split) if group in chosen else video
            for video, group in zip(self, member, strict=True)
        )

    def folds(self, count: int) -> list["Catalog"]:
        """Splits for cross-validation: consecutive groups, in their order.

        Groups are sorted by name, numbers by value, so that ten sequences
        make five folds 1-2, 3-4 and so on. Where that would leave a class
        out of a fold although it has groups enough (a folder per class and no
        groups), they are dealt instead, each to the fold that has least of
        its classes.

        Args:
            count: Integer, 2 or more.

        Returns:
            A `Catalog` per fold, its groups marked "test", the others
            "train".

        Raises:
            ValueError: If there are fewer groups than folds.
        """
        names, member, counts = self._groups()
        if not 2 <= count <= len(names):
            raise ValueError(
                f"folds must be 2 to {len(names)}, the number of groups. "
                f"Received: {count}"
            )
        order = sorted(range(len(names)), key=lambda g: _by_number(names[g]))
        parts = [list(part) for part in np.array_split(order, count)]
        enough = counts.groups_of_each >= count
        if not all(counts.within(part)[enough].all() for part in parts):
            parts = _dealt(order, counts, count)
        return [
            self._with(
                replace(video, split="test" if group in held else "train")
                for video, group in zip(self, member, strict=True)
            )
            for held in map(set, parts)
        ]

    def save(self, path) -> None:
        """Writes the catalog as CSV, whole or not at all.

        Args:
            path: File or address.
        """
        write_text(path, self.to_csv())

    def to_csv(self) -> str:
        """The catalog as CSV; columns that no row uses are left out.

        Raises:
            ValueError: If a label holds ";", which joins several.
        """
        for name in self.classes:
            if ";" in name:
                raise ValueError(
                    'a label must not hold ";", which joins several in CSV '
                    f"files. Received: label={name!r}"
                )
        rows = [
            {
                "path": video.path,
                "label": ";".join(video.labels),
                "group": video.group,
                "family": video.family,
                "split": video.split,
                "start": video.start,
                "end": video.end,
            }
            for video in self
        ]
        used = [
            name
            for name in COLUMNS
            if name in COLUMNS[:2] or any(row[name] is not None for row in rows)
        ]
        exact = any(
            "\r" in value or value != value.strip()
            for row in rows
            for value in row.values()
            if isinstance(value, str)
        )
        text = io.StringIO(newline="")
        writer = csv.DictWriter(
            text,
            used,
            extrasaction="ignore",
            lineterminator="\n",
            # Of quoted columns the fields are taken as they stand.
            quoting=csv.QUOTE_ALL if exact else csv.QUOTE_MINIMAL,
        )
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _with(self, videos) -> "Catalog":
        return replace(self, videos=tuple(videos))

    def _groups(self):
        """Names of the groups, the group of every row, `_Counts`."""
        own = [
            # A row without a group is one of its own; segments of one file
            # belong together whatever they are labelled.
            ("group", video.group) if video.group else ("path", video.path)
            for video in self
        ]
        names = {name: place for place, name in enumerate(dict.fromkeys(own))}
        member = np.array([names[name] for name in own], np.int64)
        numbers, begins = self.numbers
        if self.classes:
            of_labels = np.repeat(member, np.diff(begins))
            counts = _Counts(of_labels, numbers, len(self.classes))
        else:  # all rows count as one class
            counts = _Counts(member, np.zeros_like(member), 1)
        return [name for _, name in names], member, counts


class _Counts:
    """Rows of every class in every group, kept as a list: most are none.

    Args:
        groups: Int64 array of shape `(labels,)`.
        numbers: Integer array of shape `(labels,)`, the labels' classes.
        classes: Integer, how many there are.
    """

    def __init__(self, groups, numbers, classes):
        self.order = np.argsort(groups, kind="stable")
        self.groups, self.numbers = groups[self.order], numbers[self.order]
        self.classes = classes
        self.of_all = np.bincount(numbers, minlength=classes).astype(float)

    def of(self, groups):
        """Float64 array of shape `(groups, classes)`."""
        begins = np.searchsorted(self.groups, groups)
        ends = np.searchsorted(self.groups, groups, side="right")
        counts = np.zeros((len(groups), self.classes))
        for row, begin, end in zip(counts, begins, ends, strict=True):
            np.add.at(row, self.numbers[begin:end], 1)
        return counts

    def within(self, groups):
        """Integers of shape `(classes,)`: rows of each in some groups."""
        inside = np.isin(self.groups, groups)
        return np.bincount(self.numbers[inside], minlength=self.classes)

    @property
    def groups_of_each(self):
        """Integers of shape `(classes,)`: groups that show each."""
        pairs = np.unique(np.stack([self.groups, self.numbers]), axis=1)
        return np.bincount(pairs[1], minlength=self.classes)


def _dealt(order, counts, hands):
    """Deals groups out, each where its classes are rarest."""
    parts: list[list[int]] = [[] for _ in range(hands)]
    held = np.zeros((hands, counts.classes))
    total = np.maximum(counts.of_all, 1)
    sizes = np.bincount(counts.groups, minlength=max(order) + 1)
    # Large groups first: small ones even out what they leave.
    for group in sorted(order, key=lambda g: -sizes[g]):
        (shown,) = counts.of([group])
        crowded = (held * shown / total**2).sum(1)
        hand = int(np.lexsort((held.sum(1), crowded.round(12)))[0])
        parts[hand].append(group)
        held[hand] += shown
    return parts


def _by_number(name):
    """Sorts "seq2" before "seq10"."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def open_catalog(
    data,
    group_pattern: str | None = None,
    classes: Sequence[str] | None = None,
    follow_links: bool = True,
) -> Catalog:
    """The catalog of a folder or of a CSV file.

    A folder holds a folder of videos per class, unless a `labels.csv` in it
    says otherwise. Hidden names are passed over.

    A CSV file in UTF-8 has the columns
    `path,label[,group][,family][,split][,start][,end]`; several labels are
    joined by ";". Its paths are absolute or relative to its folder, which
    they may leave (`../far/1.mp4`): it is the user's own. Spaces around a
    field do not count, unless all names of columns stand in quotes. A row
    that says the same as an earlier one is refused: a video would count
    twice.

    A folder of shards, or of vectors, is known by its manifest; its rows are
    those that the shards or vectors were made of.

    Args:
        data: Folder or CSV file, or the address of a CSV file, of a folder
            with a `labels.csv`, or of a folder of shards or vectors.
        group_pattern: Regular expression that reads a video's group off its
            path: its first group, or all that it matches. It wins over a
            `group` column.
        classes: Class names; those of the videos, sorted, if None.
        follow_links: Whether links to folders are looked into.

    Returns:
        `Catalog`.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If it holds no videos, or a row is wrong; line and column
            are named.
    """
    made = read_header(data)
    if made is not None:
        rows = _from_csv(join(data, CATALOG))
        if group_pattern is not None:
            rows = [grouped(video, group_pattern) for video in rows]
        names = made["classes"] if classes is None else classes
        return Catalog(tuple(rows), tuple(names), os.fspath(data))
    place = data if is_remote(data) else Path(data)
    if exists(join(place, LABELS_FILE)):
        place = join(place, LABELS_FILE)
    if not exists(place):
        raise FileNotFoundError(f"no such folder or file: {place}")
    if not is_folder(place):
        root, videos = os.path.dirname(place) or ".", _from_csv(place)
    elif is_remote(place):
        raise ValueError(
            f"the videos of a folder at an address must be listed: put a "
            f"{LABELS_FILE} into it. Received: {place}"
        )
    else:
        root, videos = place, _from_folder(place, follow_links)
    if group_pattern is not None:
        videos = [grouped(video, group_pattern) for video in videos]
    _refuse_straddling(videos, place)
    if classes is None:
        classes = sorted({label for v in videos for label in v.labels})
    return Catalog(tuple(videos), tuple(classes), str(root))


def video_paths(folder, follow_links: bool = True) -> list[str]:
    """What is a video by its name below a folder; hidden names are not.

    Args:
        folder: Folder.
        follow_links: Whether links to folders are looked into.

    Returns:
        Sorted paths relative to the folder, with "/".
    """
    names = []
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=follow_links):
        real = os.path.realpath(here)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(n for n in folders if not n.startswith("."))
        below = Path(here).relative_to(folder)
        names += [(below / name).as_posix() for name in video_files(files)]
    return sorted(names)


def _from_folder(folder, follow_links):
    videos = [
        Video(f"{place.name}/{name}", (place.name,))
        for place in sorted(folder.iterdir())
        if place.is_dir() and not place.name.startswith(".")
        for name in video_paths(place, follow_links)
    ]
    if not videos:
        raise ValueError(
            f"no videos found in {folder}. Expected a folder of videos per "
            f"class, such as {folder}/running/1.mp4, or a {LABELS_FILE}."
        )
    return videos


def _from_csv(path):
    try:
        text = read_text(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if text.startswith(_UTF16):
        raise ValueError(f"{path} is written in UTF-16: save it as UTF-8.")
    if "\0" in text:
        raise ValueError(f"{path} is not a CSV file: it holds zero bytes.")
    exact = bool(re.match(r'"\w+"(,"\w+")*\r?\n', text))
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        header = [name.strip() for name in next(reader, ())]
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file: {error}") from error
    unknown = [name for name in header if name not in COLUMNS]
    if not {"path", "label"} <= set(header) or unknown:
        raise ValueError(
            f"{path} must begin with a line of columns "
            "path,label[,group][,family][,split][,start][,end]. "
            f"Received: {','.join(header) or 'an empty file'}"
        )
    if len(set(header)) < len(header):
        raise ValueError(
            f"{path} names a column twice. Received: {','.join(header)}"
        )
    lines: dict[Video, int] = {}
    try:
        for fields in filter(None, reader):
            where = f"{path}, line {reader.line_num}"
            if len(fields) != len(header):
                raise ValueError(
                    f"{where} must have as many fields as the first line. "
                    f"Received: {fields}"
                )
            if not exact:
                fields = [field.strip() for field in fields]
            row = dict(zip(header, fields, strict=True))
            video = _video(row, where, exact)
            if lines.setdefault(video, reader.line_num) != reader.line_num:
                raise ValueError(
                    f"{where} says the same as line {lines[video]}. "
                    f"Received: {video.path}"
                )
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num} is not CSV: {error}"
        ) from error
    if not lines:
        raise ValueError(f"{path} has no rows.")
    return list(lines)


# Its marks of the order of bytes, as they come out of `read_text`.
_UTF16 = tuple(
    mark.decode("utf-8", "surrogateescape")
    for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
)


def _video(row, where, exact):
    """The video of one row of CSV."""
    if not row["path"]:
        raise ValueError(f"{where} has no path.")
    labels = row["label"].split(";")
    if not exact:
        labels = [label.strip() for label in labels]
    labels = tuple(dict.fromkeys(filter(None, labels)))
    if not labels:
        raise ValueError(f"{where} has no label. Received: {row['path']}")
    seconds: dict[str, float | None] = {}
    for name in ("start", "end"):
        text = row.get(name)
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(
                f"{where}: `{name}` must be seconds, 0 or more. "
                f"Received: {name}={text!r}"
            )
        seconds[name] = value
    start, end = seconds["start"], seconds["end"]
    if end is not None and end <= (start or 0.0):
        raise ValueError(
            f"{where}: `end` must be after `start`. "
            f"Received: start={start or 0:g}, end={end:g}"
        )
    return Video(
        row["path"],
        labels,
        row.get("group") or None,
        row.get("family") or None,
        row.get("split") or None,
        start,
        end,
    )


def grouped(video: Video, pattern: str) -> Video:
    """A video with the group that a pattern reads off its path.

    Args:
        video: `Video`.
        pattern: Regular expression: its first group, or all that it matches.

    Returns:
        `Video`.

    Raises:
        ValueError: If it is no regular expression or does not match.
    """
    try:
        found = re.search(pattern, video.path)
    except re.error as error:
        raise ValueError(
            f"--group-pattern is no regular expression ({error}). "
            f"Received: {pattern!r}"
        ) from error
    if not found:
        raise ValueError(
            f"--group-pattern does not match {video.path}. "
            f"Received: {pattern!r}"
        )
    group = found.group(1) if found.re.groups else found.group(0)
    return replace(video, group=group or None)


def _refuse_straddling(videos, place):
    """A group whose rows carry different splits would leak.

    Without a group a file is one of its own, whatever segments it has.
    """
    splits: dict[tuple[str, str], str | None] = {}
    for video in videos:
        group = ("group", video.group) if video.group else ("path", video.path)
        if splits.setdefault(group, video.split) != video.split:
            raise ValueError(
                f"{place}: a {'group' if video.group else 'file'} must not "
                f"straddle a split. Received: {group[0]}={group[1]!r} in "
                f"{splits[group]!r} and {video.split!r}"
            )
