"""The parameters of a trial: one set of hyperparameters, as Katib substitutes them."""

import dataclasses

from kondense.config import Config, check_choice, option
from kondense.errors import InputError
from kondense.trial.recipe import parse_recipe

# What a trial measures, by the names that an Experiment's objective uses.
METRICS = ("score", "validation_accuracy", "validation_loss", "size_bytes", "latency_ms", "seconds")


@dataclasses.dataclass(frozen=True)
class TrialConfig(Config):
    """Which stages a trial goes through, with which hyperparameters, and what its score counts.

    ``epochs`` is the resource: the epochs of training, or of fine-tuning when the teacher is given. Schedules
    span ``max_epochs``, so a trial of 3 epochs is the beginning of the trial of 9 with the same hyperparameters.
    """

    dataset_uri: str = option("", "the Dataset artifact: a path, minio:// or s3://")
    store_uri: str = option("", "where checkpoints and the trial's model go; empty keeps neither")
    trial_name: str = option("", "the trial's name, under which its model is kept")
    teacher_uri: str = option("", "a trained model to start from; empty trains one")
    recipe: str = option("train", "steps after train, such as prune:l1:0.5 > distill > quantize:static")
    network: str = option("lenet5", "built-in name, torchvision:<name>, or package.module:factory")
    width: float = option(1.0, "multiplier of the network's channels", interval="(0, 16]")
    epochs: int = option(8, "epochs of training; of fine-tuning when teacher_uri is given", interval="[1, 100000]")
    max_epochs: int = option(0, "epochs that the schedules span; 0 means `epochs`", interval="[0, 100000]")
    tune_epochs: int = option(2, "epochs of fine-tuning after a teacher that was trained here", interval="[1, 100000]")
    lr: float = option(0.05, "peak learning rate", interval="(0, 100]")
    momentum: float = option(0.9, "momentum of SGD", interval="[0, 1)")
    weight_decay: float = option(5e-4, "L2 penalty on weights", interval="[0, 1]")
    batch_size: int = option(128, "images per step", interval="[1, 65536]")
    schedule: str = option("cosine", "learning rate over the epochs: constant, multistep, cosine or one_cycle")
    warmup_epochs: float = option(0.5, "epochs of linear warm-up", interval="[0, 1000]")
    label_smoothing: float = option(0.0, "mass taken from the true label", interval="[0, 1)")
    augment: str = option("none", "none, crop or crop_flip")
    averaging: float = option(0.0, "decay of the moving average of the weights; 0 keeps none", interval="[0, 1)")
    prune_method: str = option("l1", "how prune removes: a method of the prune stage")
    sparsity: float = option(0.5, "fraction that prune removes", interval="[0, 1)")
    layers: str = option("", "fractions by layer type or module name, as the prune stage takes them")
    pruning_schedule: str = option("cubic", "sparsity over the steps, as the prune stage takes it")
    pruning_steps: int = option(3, "steps to the full sparsity", interval="[1, 1000]")
    quantize_method: str = option("weight_only", "how quantize works: a method of the quantize stage")
    bits: int = option(8, "bits per quantized weight", interval="[2, 8]")
    student_width: float = option(0.5, "multiplier of the student's channels in distill", interval="(0, 16]")
    temperature: float = option(4.0, "softens logits in distill and in fine-tuning", interval="(0, 1000]")
    alpha: float = option(0.5, "weight of the teacher's logits in distill and fine-tuning", interval="[0, 1]")
    size_budget_bytes: int = option(0, "bytes that the score lets the model have for free; 0: any", interval="[0, inf)")
    size_weight: float = option(0.02, "accuracy that one doubling above the size budget costs", interval="[0, 1]")
    latency_budget_ms: float = option(0.0, "latency that the score lets the model have; 0: any", interval="[0, inf)")
    latency_weight: float = option(0.02, "accuracy that one doubling above the latency budget costs", interval="[0, 1]")
    metrics: str = option("", "metrics to report to Katib, joined by commas: those that it declares; empty: all")
    report_epochs: bool = option(
        False, "report validation_accuracy after every epoch, too; for Experiments that take the latest value"
    )
    device: str = option("auto", "where to train: auto, cpu or cuda")
    seed: int = option(0, "seed of all randomness", interval="[0, 2147483647]")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_recipe(self.recipe)
        for name in filter(None, self.metrics.split(",")):
            check_choice("metrics", name.strip(), METRICS)
        if not self.dataset_uri:
            raise InputError("dataset_uri must name a Dataset artifact, but got ''.")
        if self.store_uri and not self.trial_name:
            raise InputError("trial_name must be given when store_uri is, but got ''.")

    @property
    def reported(self) -> tuple[str, ...]:
        """The names of the metrics that Katib is told."""
        return tuple(name.strip() for name in self.metrics.split(",") if name.strip()) or METRICS
