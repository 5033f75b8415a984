"""The KFP component of distill."""

from kfp import dsl

from components.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def distill(
    dataset: dsl.Input[dsl.Dataset],
    teacher: dsl.Input[dsl.Model],
    student: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    epochs: int = 6,
    max_epochs: int = 0,
    batch_size: int = 128,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: str = "cosine",
    warmup_epochs: float = 0.5,
    label_smoothing: float = 0.0,
    augment: str = "none",
    averaging: float = 0.0,
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
    seed: int = 0,
    method: str = "logits",
    student_network: str = "",
    width: float = 0.5,
    temperature: float = 2.0,
    alpha: float = 0.7,
) -> None:
    """Train a smaller network, the student, on the labels and on the teacher's softened outputs.

    Args:
        epochs: epochs to train the student.
        max_epochs: epochs that the schedule spans, for trials that stop early; 0 means epochs.
        batch_size: images per step.
        learning_rate: peak learning rate.
        momentum: momentum of SGD (Nesterov when above 0).
        weight_decay: L2 penalty on weights (not on biases and norms).
        schedule: learning rate over the epochs.
        warmup_epochs: epochs of linear warm-up.
        label_smoothing: mass taken from the true label.
        augment: random crops (2 pixels of padding) and flips.
        averaging: decay of the moving average of the weights, per step; 0 keeps none.
        device: where to train; auto takes a GPU when there is one.
        precision: arithmetic; auto takes bfloat16 on GPUs that have it.
        compile: torch.compile the network (pays off on long runs).
        seed: seed of all randomness.
        method: what of the teacher the student imitates.
        student_network: built-in name, torchvision:<name>, or package.module:factory; empty for the teacher's own.
        width: multiplier of the student network's channels.
        temperature: softens the logits of teacher and student.
        alpha: weight of the teacher's part of the loss; the labels have the rest.
    """
    from pathlib import Path

    from components.distill import stage
    from components.distill.config import DistillConfig

    config = DistillConfig(
        epochs=epochs,
        max_epochs=max_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=schedule,
        warmup_epochs=warmup_epochs,
        label_smoothing=label_smoothing,
        augment=augment,
        averaging=averaging,
        device=device,
        precision=precision,
        compile=compile,
        seed=seed,
        method=method,
        student_network=student_network,
        width=width,
        temperature=temperature,
        alpha=alpha,
    )
    found = stage.run(
        config,
        dataset_dir=Path(dataset.path),
        teacher_dir=Path(teacher.path),
        student_dir=Path(student.path),
    )
    for name, value in found.items():
        metrics.log_metric(name, value)
