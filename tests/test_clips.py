"""Where clips begin, and which frames they are made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_videofusion.data.clips import (
    clip_starts,
    ClipSpec,
    each_stream,
    field_indices,
    frame_indices,
    SAMPLERS,
    within,
)

SPECS = st.builds(
    lambda frames, step, chunks, spacing, flow, short: ClipSpec(
        frames,
        step,
        streams=("rgb", "flow") if flow else ("rgb",),
        flow=flow,
        chunks=chunks,
        spacing=spacing if chunks > 1 else 0,
        short=short,
    ),
    frames=st.integers(1, 20),
    step=st.integers(1, 16),
    chunks=st.integers(1, 5),
    spacing=st.integers(1, 12),
    flow=st.none() | st.integers(1, 20),
    short=st.sampled_from(["hold", "loop"]),
)

# Every network of the papers, as its clip was published.
FAMILIES = {
    "single_frame": ClipSpec(1),
    "slow_fusion": ClipSpec(10),
    "late_fusion": ClipSpec(2, step=15),
    "multires": ClipSpec(10, size=178),
    "lrcn": ClipSpec(16, resize=(240, 320), size=(227, 227)),
    "c3d": ClipSpec(16, resize=(128, 171), size=112),
    "two_stream": ClipSpec(
        1, resize=("short_side", 256), size=224, streams=("rgb", "flow"),
        flow=10,
    ),
    "fused": ClipSpec(
        1, resize=("short_side", 256), size=224, streams=("rgb", "flow"),
        flow=10, chunks=5, spacing=10,
    ),
    "i3d": ClipSpec(
        64, fps=25.0, resize=("short_side", 256), size=224,
        streams=("rgb", "flow"), short="loop",
    ),
    "s3d": ClipSpec(64, fps=15.0, resize=("short_side", 256), size=224),
}  # fmt: skip


@given(SPECS, st.integers(1, 300), st.integers(1, 7), st.sampled_from(SAMPLERS))
def test_frames_of_every_clip_are_in_the_video(spec, frames, clips, sampler):
    generator = np.random.default_rng(0)
    starts = clip_starts(frames, spec, sampler, clips, generator)

    assert starts.dtype == np.int64
    assert starts.min() >= 0
    assert starts.max() <= max(0, frames - spec.span)
    for start in starts:
        indices = frame_indices(start, spec, frames)
        assert indices.shape == (spec.chunks * spec.frames,)
        assert indices.min() >= 0
        assert indices.max() < frames


@given(SPECS, st.integers(1, 300))
def test_clips_that_fit_are_evenly_stepped(spec, more):
    start = more % 50
    indices = frame_indices(start, spec, start + spec.span)
    chunks = indices.reshape(spec.chunks, spec.frames)

    assert (np.diff(chunks, axis=1) == spec.step).all()
    assert (np.diff(chunks[:, 0]) == spec.spacing).all()


@given(SPECS, st.integers(1, 300), st.integers(2, 20))
def test_uniform_clips_reach_both_ends_and_are_evenly_spread(
    spec, frames, clips
):
    starts = clip_starts(frames, spec, "uniform", clips)
    last = max(0, frames - spec.span)

    assert (starts[0], starts[-1]) == (0, last)
    gaps = np.diff(starts)
    assert abs(gaps - last / (clips - 1)).max() <= 1


@given(SPECS, st.integers(1, 300))
def test_dense_clips_cover_the_video_from_end_to_end(spec, frames):
    starts = clip_starts(frames, spec, "dense", 1)

    spans = (starts[:, None] + np.arange(spec.span)).ravel()
    assert set(range(frames)) <= set(spans.tolist())
    assert len(starts) == max(1, -(-frames // spec.span))


def test_random_clips_draw_every_start_and_repeat_with_the_generator():
    spec = ClipSpec(10)

    starts = clip_starts(14, spec, "random", 200, np.random.default_rng(1))
    again = clip_starts(14, spec, "random", 200, np.random.default_rng(1))

    assert set(starts.tolist()) == {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(starts, again)


def test_centre_clips_lie_in_the_middle():
    np.testing.assert_array_equal(
        clip_starts(30, ClipSpec(10), "centre", 3), [10, 10, 10]
    )
    assert clip_starts(30, ClipSpec(10), "uniform", 1) == [10]


def test_clips_of_short_videos_hold_the_last_frame_or_loop():
    hold, loop = ClipSpec(7), ClipSpec(7, short="loop")

    assert clip_starts(3, hold, "random", 1, np.random.default_rng(0)) == [0]
    assert frame_indices(0, hold, 3).tolist() == [0, 1, 2, 2, 2, 2, 2]
    assert frame_indices(0, loop, 3).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert within(np.array([0, 5]), 1, "loop").tolist() == [0, 0]


@pytest.mark.parametrize("name", FAMILIES)
def test_clips_of_every_family_survive_json(name):
    import json

    spec = FAMILIES[name]

    assert ClipSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("name", "time", "span", "fields"),
    [
        ("single_frame", 1, 1, (1, 0)),
        ("slow_fusion", 10, 10, (1, 0)),
        ("late_fusion", 2, 16, (1, 0)),
        ("c3d", 16, 16, (1, 0)),
        ("two_stream", 1, 11, (1, 11)),
        ("fused", 5, 51, (5, 11)),
        ("i3d", 64, 65, (1, 65)),
    ],
)
def test_clips_of_the_families_span_what_their_streams_need(
    name, time, span, fields
):
    spec = FAMILIES[name]

    assert (spec.time, spec.span) == (time, span)
    assert spec.flow_offsets.shape == fields


@pytest.mark.parametrize(
    ("streams", "shapes"),
    [
        (("rgb",), {"rgb": (10, 96, 112, 3)}),
        (("flow",), {"flow": (20, 96, 112, 2)}),
        (("rgb", "flow"), {"rgb": (10, 96, 112, 3), "flow": (20, 96, 112, 2)}),
    ],
    ids=str,
)
def test_shapes_count_all_chunks_of_the_streams(streams, shapes):
    flow = 4 if "flow" in streams else None
    spec = ClipSpec(
        2, size=(96, 112), streams=streams, flow=flow, chunks=5, spacing=3
    )
    assert spec.shapes == shapes


def test_flow_is_centred_on_its_frames():
    spec = ClipSpec(1, streams=("rgb", "flow"), flow=10, chunks=2, spacing=10)

    # The frame stands before the fifth field.
    assert spec.offsets.tolist() == [4, 14]
    assert spec.flow_offsets.tolist() == [
        list(range(11)),
        list(range(10, 21)),
    ]


@pytest.mark.parametrize(
    ("resize", "size", "expected", "crop"),
    [
        (("square", 200), 170, ("square", 100), 85),
        (("short_side", 256), 224, ("short_side", 128), 112),
        ((128, 171), 112, (64, 86), 56),
        (("cover", 200, 240), 170, ("cover", 100, 120), 85),
        (("square", 171), 170, ("square", 86), 85),
    ],
)
def test_another_size_scales_the_resize_in_proportion(
    resize, size, expected, crop
):
    spec = ClipSpec(10, resize=resize, size=size).with_size(crop)

    assert spec.resize == expected
    assert spec.size == (crop, crop)
    assert ClipSpec(10).with_size((170, 170)) == ClipSpec(10)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("frames", {"frames": 0}),
        ("frames", {"frames": 2.5}),
        ("frames", {"frames": True}),
        ("step", {"step": 0}),
        ("fps", {"fps": 0}),
        ("fps", {"fps": float("nan")}),
        ("resize", {"resize": ("oval", 3)}),
        ("resize", {"resize": ("square", 3, 4)}),
        ("resize", {"resize": ()}),
        ("resize", {"resize": (200,)}),
        ("size", {"size": 201}),
        ("size", {"size": (170,)}),
        ("streams", {"streams": ()}),
        ("streams", {"streams": ("sound",)}),
        ("flow", {"flow": 3}),
        ("flow", {"streams": ("flow",), "flow": 0}),
        ("spacing", {"chunks": 2}),
        ("spacing", {"spacing": 5}),
        ("chunks", {"chunks": 0}),
        ("short", {"short": "mirror"}),
    ],
)
def test_wrong_clips_are_refused_by_name(name, values):
    with pytest.raises(
        ValueError, match=rf"`{name}` must be.*Received: {name}="
    ):
        ClipSpec(**{"frames": 10, **values})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sampler", {"sampler": "often"}),
        ("frames", {"frames": 0}),
        ("clips", {"clips": 0}),
        ("generator", {"sampler": "random"}),
    ],
)
def test_wrong_sampling_is_refused_by_name(name, values):
    right = {"frames": 20, "spec": ClipSpec(10), "sampler": "dense", "clips": 1}

    with pytest.raises(ValueError, match=f"`{name}` must be"):
        clip_starts(**{**right, **values})


def test_unknown_keys_of_a_saved_clip_are_refused():
    with pytest.raises(ValueError, match=r"not a clip.*colour"):
        ClipSpec.from_json({"frames": 3, "colour": "red"})


@given(SPECS, st.integers(1, 60), st.lists(st.integers(0, 59), max_size=3))
def test_fields_of_clips_are_made_of_the_motions_between_their_frames(
    spec, frames, starts
):
    if spec.flow is None:
        return
    found = field_indices(np.array(starts, int), spec, frames)

    assert found.shape == (len(starts), spec.chunks * spec.flow, spec.step)
    for start, clip in zip(starts, found, strict=True):
        fields = iter(clip)
        for chunk in spec.flow_offsets:
            for begin in chunk[:-1]:
                for motion, seen in enumerate(next(fields), start + int(begin)):
                    if frames == 1:
                        expected = -1
                    elif spec.short == "loop":
                        expected = [*range(frames - 1), frames - 2]
                        expected = expected[motion % frames]
                    else:
                        expected = motion if motion < frames - 1 else -1
                    assert seen == expected


def test_what_is_done_to_a_clip_is_done_to_each_of_its_streams():
    def longer(stream, by):
        return [*stream, by]

    assert each_stream(longer, [1], 5) == [1, 5]
    assert each_stream(longer, {"rgb": [1], "flow": [2]}, 5) == {
        "rgb": [1, 5],
        "flow": [2, 5],
    }
