"""The sections of a recipe. Each field has its meaning below it; fields that are not known are errors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

Part = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Frozen, strict about names, and finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        protected_namespaces=(),
    )


class Model(Section):
    """What is trained."""

    name: str = "sam_tiny"
    """A model of `samaritan models list`."""
    init: str | None = None
    """Weights to begin with: a file, or the name of published weights; none: random."""
    init_extra_classes: Literal["samed_compat", "fresh", "copy"] | None = None
    """Where mask tokens come from that the weights do not have; none: as SAMed does."""
    num_classes: PositiveInt | None = None
    """Classes without background, for task multiclass; none: as many as the data name."""
    image_size: PositiveInt | None = None
    """Side of the input in pixels; none: the model's own."""
    method: str | None = None
    """How a plain model is adapted, such as lora or decoder_only; adapted names bring their own."""
    options: dict[str, JsonValue] = {}
    """Further options of the model and its adapters, such as rank."""


class Data(Section):
    """How examples are drawn."""

    batch_size: PositiveInt = 4
    """Images in a batch of one process."""
    objects_per_image: PositiveInt = 5
    """Objects drawn for each image, with replacement; task interactive."""
    objects: Literal["labels", "components", "both"] = "labels"
    """What counts as an object of a label map; task interactive."""
    min_size: PositiveInt = 10
    """Pixels of the input that an object needs; task interactive."""
    augment: Literal["none", "samed", "geometry", "heavy", "upright", "nnunet"] = "geometry"
    """Turns and flips as SAMed; those and warps; or intensities as well; warps and intensities alone; or what
    nnU-Net does, with chain nnunet."""
    intensity: PositiveFloat = 1.0
    """How often intensities change, times the usual; augment heavy with chain focus."""
    chain: Literal["sam", "samed", "sam_med2d", "focus", "sam_med3d", "neurosam3d", "nnunet"] = (
        "sam"
    )
    """How an image becomes the input: as published for this system; "focus": a window around one object;
    "nnunet": patches of cases that are prepared by plans."""
    window: tuple[float, float] | None = None
    """Intensities that become black and white; none: 8 bits as they are, others by percentiles. Of volumes:
    that all are cut to; none: as the chain does."""
    weights: dict[str, NonNegativeFloat] = {}
    """Share of each data set in an epoch; none: every image once."""
    per_epoch: PositiveInt | None = None
    """Images in an epoch; none: as many as there are."""
    train: str = "train"
    """The part of the manifest to learn from."""
    validate_on: str = "val"
    """The part to validate on."""
    crop: Literal["object", "voxel", "random", "mixed"] = "object"
    """Where crops of volumes lie: around the object (as published), around a voxel of it, anywhere that shows
    one, or any of these; task iterated."""
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Voxels of the input along array axes i, j and k; none: as the chain has it, or the plans. Task
    iterated, and chain nnunet where a raw folder is planned."""
    measure: Literal["window", "volume"] = "window"
    """Normalise each crop by itself (as published), or by its volume; task iterated."""
    min_volume_mm3: NonNegativeFloat = 0.0
    """Volume that an object needs in its file, beside min_size; task iterated."""
    channel: NonNegativeInt | None = None
    """Which channel of volumes that have several; none: one drawn for each turn. Task iterated."""
    cache: str | None = None
    """A folder to keep resampled volumes in; none: in memory. Task iterated. With chain nnunet: the folder
    that plans and prepared cases of a raw folder go into; none: as `samaritan prepare plan` has it."""
    plans: str = "nnUNetPlans"
    """Name of the plans in a planned folder; this and what follows: chain nnunet."""
    configuration: str | None = None
    """Which of the plans' configurations; none: 3d_fullres, or 2d where there is no other."""
    fold: NonNegativeInt | Literal["all"] = 0
    """Which fold to hold out; all: learn from every case, and validate on the same."""
    patch_size: tuple[PositiveInt, ...] | None = None
    """Sides of a patch in the order of the plans; none: the model's, no larger than the plans' if it is a
    small one, else the plans'."""
    foreground: Part = 0.33
    """Share of each batch that must show foreground."""
    mirror: bool = True
    """Reverse axes in training, so that prediction may as well."""
    by_patient: bool = False
    """Make folds in which no patient is in both parts; nnU-Net's split scans."""
    patient: str | None = None
    """Regular expression on case ids whose first group is the patient; none: as the data set says."""
    val_fraction: Part = 0.2
    """Patients to hold out where the manifest does not say who is in which part."""


class Prompts(Section):
    """How prompts are simulated; task interactive."""

    each: Literal["batch", "object"] = "batch"
    """Draw the kind of prompt for a batch (as published), or for each of its objects, showing all earlier
    clicks; that needs a model of backbone unet."""
    rounds: NonNegativeInt = 8
    """Corrections after the first answer; each is an update of its own."""
    points: tuple[PositiveInt, ...] = (1, 3, 5, 9)
    """How many points a correction may have, drawn for each."""
    box_part: Part = 0.5
    """How often a batch begins with boxes instead of points."""
    box_noise: Literal["jitter", "shift", "none"] = "jitter"
    """Move each face on its own, the whole box (as published), or nothing."""
    box_around: Literal["all", "largest"] = "all"
    """Around the whole object, or around its largest connected component (as published)."""
    click_at: Literal["random", "core"] = "random"
    """Anywhere in the object or error (as published), or deep inside the largest."""
    mask_part: Part = 0.1
    """How often an object begins with a rough mask as well; with `each` "object"."""
    mask_only: bool = True
    """Give one correction in the middle, and the last, the previous mask alone."""
    multimask: bool = True
    """Predict three masks and train the one that is chosen."""
    choose: Literal["predicted_iou", "lowest_loss"] = "predicted_iou"
    """Which of them: the one that the model believes in (as published), or the best."""
    mask_values: Literal["probabilities", "logits"] = "probabilities"
    """What a mask prompt holds: probabilities for SAM-Med2D, logits for SAM."""


At = Literal["random", "largest", "core"]


class Clicks(Section):
    """How clicks follow one another on one object; task iterated."""

    count: tuple[PositiveInt, PositiveInt] = (11, 11)
    """Fewest and most answers; drawn for each batch, and one loss is the sum over them."""
    show: Literal["newest", "all"] = "newest"
    """Show the newest click alone with the last answer (SAM-Med3D), or all clicks (NeuroSAM3D)."""
    at: At = "random"
    """Anywhere on an error (as published), on the largest connected error, or deep inside that."""
    first_at: At = "random"
    """Where the first click lies: anywhere on the object, on its largest part, or deep inside that."""
    box_part: Part = 0.0
    """How often a batch begins with a box, which is shown with the clicks ever after."""
    box_noise: Literal["jitter", "none"] = "none"
    """Move each face of a box, or not (as published)."""
    box_loss: bool = True
    """Learn from the answer to the box alone; not so in NeuroSAM3D."""
    mask_only: Literal["none", "middle", "middle_and_last"] = "middle_and_last"
    """Show the last answer alone at one turn in the middle, and at the end."""
    reach: NonNegativeInt | None = None
    """How many earlier answers a loss goes back through: 0: none; none: all (as published)."""
    feedback: bool = False
    """Let the image joined with the last mask take the place of the image (M-SAM's paper, not its code)."""


class Matching(Section):
    """Weights of the terms by which masks are matched with classes and judged; task mask_classes.

    Those of MaskSAM for ACDC and Synapse.
    """

    classes: NonNegativeFloat = 0.2
    """Which class a mask is of."""
    no_object: NonNegativeFloat = 0.1
    """How much a proposal without an object counts in that."""
    mask: NonNegativeFloat = 1.5
    """Cross-entropy of masks over points."""
    dice: NonNegativeFloat = 1.5
    """Their overlap over points."""
    aux_mask: NonNegativeFloat = 0.5
    """Cross-entropy of masks that become prompts."""
    aux_dice: NonNegativeFloat = 0.5
    """Their overlap."""
    box: NonNegativeFloat = 0.5
    """Distance of box corners."""
    giou: NonNegativeFloat = 0.2
    """Overlap of boxes."""
    points: PositiveInt = 32_768
    """Points at which masks are compared."""
    by_class: bool = False
    """Query n stands for class n wherever that is, instead of the assignment of least cost: teaches faster,
    and needs a query for each class and the background."""


class Loss(Section):
    """Weights of the parts of the loss."""

    cross_entropy: NonNegativeFloat = 0.0
    """Over classes in tasks multiclass, voxel_classes and mask_classes (there beside what is matched); over
    pixels with prompts for each object, and in task iterated."""
    dice: NonNegativeFloat = 1.0
    """Overlap."""
    focal: NonNegativeFloat = 20.0
    """Over pixels; task interactive."""
    iou: NonNegativeFloat = 1.0
    """Of the model's own estimate of its quality; tasks interactive and iterated."""


class ParameterGroup(Section):
    """Parameters with settings of their own."""

    match: str
    """A pattern over parameter names: * one word, ** any number of words."""
    lr: NonNegativeFloat = 1.0
    """Times the learning rate."""
    weight_decay: NonNegativeFloat = 1.0
    """Times the weight decay."""


class Optim(Section):
    """The optimiser."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: PositiveFloat = 1e-4
    """Learning rate at its highest."""
    weight_decay: NonNegativeFloat = 0.0
    """On matrices and kernels; norms, biases and embeddings keep their size (but see compat)."""
    betas: tuple[Part, Part] = (0.9, 0.999)
    """Of Adam."""
    eps: PositiveFloat = 1e-8
    """Of Adam: added to the root of the second moment."""
    momentum: Part = 0.9
    """Of SGD."""
    nesterov: bool = False
    """SGD looks ahead by its momentum."""
    groups: tuple[ParameterGroup, ...] = ()
    """Parameters with settings of their own; the first pattern that fits counts."""


class Schedule(Section):
    """How the learning rate goes; counted in iterations: groups of batches that are learned together."""

    kind: Literal["constant", "polynomial", "cosine", "multistep", "step"] = "constant"
    warmup: NonNegativeInt = 0
    """Iterations in which the rate rises in a straight line."""
    power: PositiveFloat = 0.9
    """Of the polynomial."""
    horizon: PositiveInt | None = None
    """Epochs until the rate would be 0, if not those of the run."""
    steps: Literal["iteration", "epoch"] = "iteration"
    """When the rate changes: at every iteration, or at the beginning of each epoch."""
    floor: Part = 0.0
    """Part of the rate that the cosine ends at."""
    milestones: tuple[PositiveInt, ...] = ()
    """Epochs after which the rate is multiplied by gamma; kind multistep."""
    milestones_in: Literal["epochs", "iterations"] = "epochs"
    """What milestones count."""
    every: PositiveInt | None = None
    """Iterations after which the rate is multiplied by gamma, again and again; kind step."""
    gamma: PositiveFloat = 0.5
    lag: NonNegativeInt = 0
    """Iterations that the rate lags behind; 1 where code sets it after the step."""


class Run(Section):
    """How long, how exactly, and how often something is written down."""

    epochs: PositiveInt = 15
    max_iterations: PositiveInt | None = None
    """Stop after so many iterations, whatever the epoch."""
    seed: NonNegativeInt = 0
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the computation; weights stay float32. auto: bfloat16 on GPUs that have it."""
    accumulate: PositiveInt = 1
    """Batches whose gradients make one update."""
    clip_norm: PositiveFloat | None = None
    """Greatest norm of the gradients."""
    gradient_checkpointing: bool = False
    """Compute encoder blocks again on the way back: less memory, more time, the same gradients."""
    ema: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Keep a moving average of the weights with this decay, and validate and export that."""
    log_every: PositiveInt = 10
    """Iterations between lines of the log."""
    checkpoint_every: PositiveInt = 200
    """Iterations between checkpoints; every epoch ends with one as well."""


class Validation(Section):
    """How the model is watched, on images that it does not learn from."""

    every: PositiveInt = 1
    """Epochs between validations; the last epoch always ends with one."""
    batches: PositiveInt | None = None
    """At most so many batches; none: all."""
    seed: NonNegativeInt = 1234
    """Of the prompts: the same in every validation."""
    clicks: PositiveInt = 3
    """Clicks of a validation of an interactive model; Dice is taken after each, and from a box."""
    keep: Literal["best", "last"] = "best"
    """The model that comes of the run: the one of the best validation, or, as of nnU-Net, the last, because
    the Dice of a few patches is too noisy to choose by; best.safetensors is then not written."""
    patience: PositiveInt | None = None
    """Stop after so many validations without a better one."""
    pictures: NonNegativeInt = 4
    """Sample pictures of each validation."""
    dice: Literal["pooled", "each"] = "pooled"
    """Dice of all patches of a validation as if they were one (nnU-Net's pseudo Dice), or the mean of theirs;
    chain nnunet."""
    on: Literal["patches", "volumes"] = "patches"
    """Watch the model on patches, or on whole volumes, which takes longer; chain nnunet."""
    finish: bool = True
    """Label the held-out volumes whole in the end, and keep label maps and summary.json; chain nnunet."""
    mirror: bool = True
    """Then also show patches reversed, which takes eight times as long in three dimensions; chain nnunet."""


class Compat(Section):
    """Defects of published code, to train exactly as it did. All are off unless wanted."""

    frozen_point_embeddings: bool = False
    """SAM-Med2D: embeddings of clicks never learn (its optimiser holds stale copies)."""
    prompts_without_gradient: bool = False
    """SAM-Med2D: corrections do not train the prompt encoder, nor ever its mask downscaling."""
    batch_losses: bool = False
    """SAM-Med2D: one Dice and one quality target for the whole batch, whose gradient reaches the masks."""
    exclusive_box_corners: bool = False
    """SAM-Med2D: a box's second corner lies one past the object, not on its last pixel."""
    padded_small_pictures: bool = False
    """SAM-Med2D: pictures smaller than the input are padded around, which its own predictor does not do."""
    corner_aligned_labels: bool = False
    """SAMed: labels are sampled up to 1.5 pixels beside the logits that they are compared with."""
    nearest_rotation: bool = False
    """SAMed: images are rotated by nearest neighbour, which roughens them."""
    cubic_zoom: bool = False
    """SAMed: slices are enlarged by cubic splines after augmentation, which overshoots at edges."""
    decay_everything: bool = False
    """SAMed: weight decay also shrinks norms, biases and embeddings."""
    pooled_statistics: bool = False
    """SAM-Med3D: crops are normalised over their whole batch at once, unlike in inference."""
    half_logit_errors: bool = False
    """SAM-Med3D: errors are looked for where logits exceed one half, and the mask is where they exceed 0."""
