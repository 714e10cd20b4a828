"""How a network is trained: one frozen record, from which flags are made.

Imports the standard library alone, so that the command line answers at once.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STRATEGIES = ("one", "mirrored", "multiworker", "parameter-server")
SCHEDULES = ("constant", "cosine", "steps")
BALANCES = ("none", "loss", "sampling")
RESIZES = ("own", "square", "stretch")
SAMPLERS = ("random", "uniform", "centre")
TRAINS = ("all", "top", "top3", "scratch")
ACTIVATIONS = ("softmax", "sigmoid")


def numbers(text):
    """Numbers between commas, as a tuple."""
    return tuple(float(part) for part in text.split(",") if part.strip())


def told(default, help, choices=None, kind=None):
    """A field of the recipe with what `--help` and the parser tell of it."""
    kind = kind or type(default)
    return field(
        default=default,
        metadata={"help": help, "choices": choices, "kind": kind},
    )


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a network is trained, and nothing else.

    The defaults are the paper's: momentum 0.9, weight decay 5e-4, rate 1e-3
    lowered when the validation error stops improving, batches of 32 clips,
    random 170 x 170 crops of 200 x 200 frames, half of them mirrored.
    `dataclasses.replace` makes a variation, `RECIPES` holds the named ones.

    Raises:
        ValueError: If a value is out of its range.

    Reference:
        Karpathy et al., CVPR 2014, section 3.3.
    """

    model: str = told(
        "slow_fusion", "the network; `videofusion models` lists them"
    )
    width: float = told(1.0, "share of the network's filters and units")
    size: int | None = told(
        None,
        "side of the crop in pixels (default: the network's own)",
        kind=int,
    )
    resize: str = told(
        "own",
        "how frames get their shape: the network's own way, the central "
        "square of each, or all of each, stretched",
        RESIZES,
    )
    frames: int | None = told(
        None, "frames of a clip (default: the network's own)", kind=int
    )
    fps: float | None = told(
        None,
        "frames per second to count in; 0: the video's own rate "
        "(default: the network's own)",
        kind=float,
    )
    step: int | None = told(
        None,
        "frames of the video from one of the clip to the next "
        "(default: the network's own)",
        kind=int,
    )
    dropout: float | None = told(
        None, "dropout rate (default: the network's own)", kind=float
    )
    initializer: str | None = told(
        None,
        "weights to start from: halving, authors, krizhevsky, or a Keras "
        "initializer (default: the network's own)",
        kind=str,
    )
    activation: str = told(
        "softmax",
        "what the scores pass: softmax, one label or equal shares of several; "
        "or sigmoid, every class by itself, for videos with several labels",
        ACTIVATIONS,
    )
    options: dict = field(
        default_factory=dict,
        metadata={
            "help": "an argument of the network's builder alone, such as "
            "momentum=0.9 or boundary=mixed_4b; may be repeated",
            "choices": None,
            "kind": dict,
        },
    )

    train: str = told(
        "all",
        "what learns of a network that begins with trained weights: all of "
        "it, the classifier, or the last three layers with weights; scratch: "
        "all, and no weights are taken",
        TRAINS,
    )
    old_rate: float = told(
        1.0,
        "share of the learning rate for layers that came with their weights",
    )
    top_dropout: float | None = told(
        None,
        "dropout rate before each of the last three layers that learns, 0.9 "
        "where one unit in ten is kept (default: as --dropout says)",
        kind=float,
    )
    cache_activations: int = told(
        0,
        "with --train top: so many clips of every video, cropped and mirrored "
        "by chance, pass the frozen network once, and the top learns from "
        "what is kept of them; 0: every clip is drawn and passed anew",
    )

    optimizer: str = told("sgd", "the update rule", OPTIMIZERS)
    learning_rate: float = told(1e-3, "learning rate at the start")
    momentum: float = told(0.9, "momentum of SGD")
    weight_decay: float = told(
        5e-4, "weight decay; under SGD it acts inside the momentum"
    )
    schedule: str = told(
        "constant",
        "how the rate goes beside the plateaus: not at all, down to 0 along "
        "half a cosine, or by steps at the epochs of --drops",
        SCHEDULES,
    )
    drops: tuple = told(
        (),
        "epochs after which the rate is multiplied by --drop-factor, such as "
        "30,60; parts of epochs count too",
        kind=numbers,
    )
    drop_factor: float = told(0.1, "what the rate is multiplied by there")
    warmup: float = told(
        0.0, "epochs in which the rate rises evenly from 0 to its value"
    )
    clip_norm: float | None = told(
        None, "bound on the norm of each step's whole gradient", kind=float
    )
    accumulate: int = told(
        1, "steps whose gradients are averaged before the weights move"
    )
    label_smoothing: float = told(
        0.0, "share of the label spread over all classes"
    )
    balance: str = told(
        "none",
        "what makes up for rare classes: nothing, weights in the loss, or "
        "showing every class equally often",
        BALANCES,
    )
    class_weights: dict = field(
        default_factory=dict,
        metadata={
            "help": "what clips of a class count for in the loss, such as "
            "walking=2.5; may be repeated",
            "choices": None,
            "kind": dict,
        },
    )

    batch: int = told(32, "clips per step, over all devices")
    epochs: int = told(20, "passes over the training videos")
    clips_per_video: int = told(1, "clips drawn from every video in an epoch")
    sampler: str = told("random", "where training clips begin", SAMPLERS)
    augment: bool = told(
        True, "random crops and flips; otherwise the centre crop"
    )
    jitter: float = told(
        0.0, "how far contrast and brightness of each colour are drawn apart"
    )
    mixup: float = told(
        0.0,
        "mixes pairs of clips and their labels, by shares from "
        "Beta(mixup, mixup); 0: not at all",
    )
    validation_clips: int = told(
        1, "clips per validation video after each epoch"
    )

    plateau_patience: int = told(
        5,
        "epochs without better validation before the rate falls; 0: never",
    )
    plateau_factor: float = told(0.1, "what the rate is multiplied by then")
    early_stopping: int = told(
        0,
        "epochs without better validation before training ends; 0: never",
    )

    precision: str = told("float32", "number format of the layers", PRECISIONS)
    jit_compile: bool = told(False, "compile the network with XLA")
    strategy: str = told(
        "one",
        "devices: one; all graphics cards of this machine; those of several "
        "machines in step, or of several by way of parameter servers, as "
        "TF_CONFIG says",
        STRATEGIES,
    )
    seed: int = told(0, "seed of weights, splits, clips, crops and flips")
    deterministic: bool = told(False, "only operations that repeat to the bit")

    def __post_init__(self):
        for name in (
            "width", "learning_rate", "plateau_factor", "drop_factor",
        ):  # fmt: skip
            self._expect(name, getattr(self, name) > 0, "more than 0")
        for name in (
            "batch", "epochs", "clips_per_video", "validation_clips",
            "accumulate",
        ):  # fmt: skip
            self._expect(name, getattr(self, name) >= 1, "1 or more")
        for name in (
            "weight_decay", "plateau_patience", "early_stopping", "warmup",
            "mixup", "old_rate", "cache_activations",
        ):  # fmt: skip
            self._expect(name, getattr(self, name) >= 0, "0 or more")
        self._expect("seed", self.seed >= 0, "0 or more")
        for name in ("momentum", "dropout", "label_smoothing", "top_dropout"):
            value = getattr(self, name)
            self._expect(name, value is None or 0 <= value < 1, "in [0, 1)")
        self._expect("jitter", 0 <= self.jitter <= 1, "in [0, 1]")
        self._expect(
            "drops",
            all(epoch > 0 for epoch in self.drops)
            and list(self.drops) == sorted(self.drops),
            "epochs in rising order, each more than 0",
        )
        self._expect(
            "drops",
            bool(self.drops) == (self.schedule == "steps"),
            "given with schedule='steps', and only then",
        )
        self._expect(
            "class_weights",
            all(
                isinstance(weight, int | float) and weight >= 0
                for weight in self.class_weights.values()
            ),
            "numbers of 0 or more",
        )
        alone = self.train == "top" and self.strategy == "one"
        plain = not self.mixup and self.balance != "sampling"
        self._expect(
            "cache_activations",
            not self.cache_activations or (alone and plain),
            "0, but with train='top', strategy='one', no mixup and no "
            "balance='sampling'",
        )
        self._expect("fps", self.fps is None or self.fps >= 0, "0 or more")
        for name in ("size", "step", "frames"):
            value = getattr(self, name)
            self._expect(name, value is None or value >= 1, "1 or more")
        self._expect(
            "clip_norm",
            self.clip_norm is None or self.clip_norm > 0,
            "more than 0",
        )
        for part in fields(self):
            choices = part.metadata["choices"]
            if choices:
                self._expect(
                    part.name,
                    getattr(self, part.name) in choices,
                    f"one of {', '.join(choices)}",
                )

    def _expect(self, name, true, expected):
        if not true:
            raise ValueError(
                f"`{name}` must be {expected}. "
                f"Received: {name}={getattr(self, name)!r}"
            )

    def to_json(self):
        """A dict of plain values, for `recipe.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values):
        """The recipe that `to_json` wrote.

        Args:
            values: Dict; keys that are not fields are an error.

        Raises:
            ValueError: If a key is unknown or a value out of range.
        """
        known = {part.name for part in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                "A recipe has no such fields; was it written by a newer "
                f"release? Received: {', '.join(unknown)}"
            )
        values = dict(values)
        if "drops" in values:
            # JSON knows no tuples.
            values["drops"] = tuple(values["drops"])
        return cls(**values)

    @classmethod
    def load(cls, path):
        """Reads the recipe out of a run's `recipe.json`."""
        return cls.from_json(json.loads(Path(path).read_text())["recipe"])


# Papers count in steps of their data; here they are epochs of it, so that a
# recipe serves other data too: UCF-101's first split has 9,537 training videos,
# Sports-1M's about 793,000, Kinetics-400's about 246,500. On one card
# `--batch 6 --accumulate 64` takes the steps of a batch of 384. With each
# recipe stands what its authors reached.
RECIPES = {
    # Karpathy et al., CVPR 2014, section 3.3. Sports-1M, 20 clips of 4 passes
    # (table 1): slow fusion 60.9 % video Hit@1, 80.2 % video Hit@5.
    "karpathy2014": Recipe(),
    # Simonyan & Zisserman, NIPS 2014, section 5: batches of 256, a clip per
    # video; 80,000 steps, the rate lowered after 50,000 and 70,000. UCF-101,
    # 3 splits (table 4): temporal stream 83.7 %; spatial, from scratch, 52.3 %
    # of split 1.
    "two_stream2014": Recipe(
        model="temporal_stream",
        dropout=0.9,
        learning_rate=1e-2,
        schedule="steps",
        drops=(1316.0, 1842.0),
        epochs=2105,
        batch=256,
        plateau_patience=0,
    ),
    # The same, from weights of another data set: 20,000 steps, the rate
    # lowered after 14,000. UCF-101: spatial stream 73.0 %.
    "two_stream2014_finetune": Recipe(
        model="spatial_stream",
        dropout=0.9,
        learning_rate=1e-2,
        schedule="steps",
        drops=(368.0,),
        epochs=526,
        batch=256,
        plateau_patience=0,
    ),
    # Donahue et al., CVPR 2015, section 4.1, and the authors' solver: batches
    # of 24 clips of 16 frames, a tenth of the rate after every 10,000 steps,
    # gradients bounded by 5; where it ends is our choice (30,000). UCF-101:
    # RGB 68.2 %, flow 77.3 %.
    "lrcn2015": Recipe(
        model="lrcn",
        schedule="steps",
        drops=(25.0, 50.0),
        epochs=75,
        batch=24,
        weight_decay=5e-3,
        clip_norm=5.0,
        plateau_patience=0,
    ),
    # Tran et al., ICCV 2015, section 3: five clips per video, batches of 30,
    # half the rate after every 150,000 steps, 1.9 million steps. Sports-1M
    # (table 2): 60.0 % video Hit@1, 84.4 % video Hit@5.
    "c3d2015": Recipe(
        model="c3d",
        learning_rate=3e-3,
        schedule="steps",
        drops=tuple(round(1.135 * number, 2) for number in range(1, 13)),
        drop_factor=0.5,
        epochs=15,
        batch=30,
        clips_per_video=5,
        plateau_patience=0,
    ),
    # The authors' solver for UCF-101, from weights of Sports-1M: 20,000 steps,
    # a tenth of the rate after every 5,000. Split 1, another's run: 83.1 %.
    "c3d2015_finetune": Recipe(
        model="c3d",
        learning_rate=1e-4,
        schedule="steps",
        drops=(15.7, 31.4, 47.2),
        epochs=63,
        batch=30,
        plateau_patience=0,
    ),
    # Feichtenhofer et al., CVPR 2016, section 4: batches of 96, rates from
    # 1e-3 to 1e-6; when the rate falls, on a plateau, is our choice. UCF-101:
    # 92.5 %.
    "fused2016": Recipe(
        model="fused_two_stream",
        options={"backbone": "vgg16"},
        dropout=0.85,
        batch=96,
        epochs=60,
    ),
    # Carreira & Zisserman, CVPR 2017, section 3, and the authors' notes: 64
    # copies of 6 clips; 0.1 for 97,000 steps, 0.01 up to 108,000, 0.001 up to
    # 115,000 (flow went on with a second such cycle). Kinetics-400 (table 3,
    # from ImageNet's weights): RGB 71.1 %, flow 63.4 %, both 74.2 %.
    "i3d2017": Recipe(
        model="i3d",
        learning_rate=0.1,
        weight_decay=1e-7,
        schedule="steps",
        drops=(151.0, 168.0),
        epochs=179,
        batch=384,
        plateau_patience=0,
    ),
    # Xie et al., ECCV 2018: 56 copies of 6 clips; 0.1 for 60,000 steps, 0.01
    # up to 70,000, 0.001 up to 80,000. Kinetics-400: S3D 72.2 %, S3D-G 74.7 %.
    "s3d2018": Recipe(
        model="s3dg",
        learning_rate=0.1,
        weight_decay=1e-7,
        schedule="steps",
        drops=(81.7, 95.4),
        epochs=109,
        batch=336,
        plateau_patience=0,
    ),
    # Karpathy et al., CVPR 2014, section 4.1: a network upon histograms, all
    # of whose numbers were searched and none printed. Here is where to begin
    # with dozens or hundreds of videos; `videofusion tune baseline` goes on.
    # Weights start small: what tells classes apart is a small part of
    # histograms, and drowns in the answers of order one that "halving" begins
    # with. One layer at this rate validated better on few recordings than two
    # at a third of it. Sports-1M (table 1): 55.3 % video Hit@1. README tells
    # what it reached.
    "baseline2014": Recipe(
        model="feature_mlp",
        initializer="he_normal",
        options={"hidden": [512]},
        optimizer="adam",
        learning_rate=1e-3,
        weight_decay=0.0,
        epochs=60,
        plateau_patience=0,
    ),
    # A few dozen recordings, two cores, minutes: a quarter of the filters,
    # half the side, every fourth frame, and colours drawn anew, since few
    # recordings are learned by heart. README tells what it reached.
    "small": Recipe(
        width=0.25,
        size=80,
        resize="stretch",
        step=4,
        dropout=0.5,
        jitter=0.5,
        optimizer="adam",
        learning_rate=3e-4,
        weight_decay=0.0,
        batch=16,
        clips_per_video=4,
        epochs=48,
        plateau_patience=0,
    ),
}
