"""The KFP component of distill."""

from kfp import dsl

from kondense.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def distill(
    dataset: dsl.Input[dsl.Dataset],
    teacher: dsl.Input[dsl.Model],
    student: dsl.Output[dsl.Model],
    model: dsl.Input[dsl.Model] = None,
    teacher_2: dsl.Input[dsl.Model] = None,
    teacher_3: dsl.Input[dsl.Model] = None,
    epochs: int = 6,
    max_epochs: int = 0,
    batch_size: int = 128,
    learning_rate: float = 0.05,
    optimizer: str = "sgd",
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
    start: str = "auto",
    temperature: float = 2.0,
    temperature_schedule: str = "constant",
    temperature_end: float = 1.0,
    alpha: float = 0.9,
    alpha_schedule: str = "constant",
    alpha_end: float = 0.0,
    hint_weight: float = 0.0,
    hint_layers: str = "",
    teacher_weights: str = "uniform",
    labels: bool = True,
    cache_teacher: bool = False,
    profile: str = "quick",
    step: str = "",
) -> None:
    """Train a small network, the student, on the labels and on what one to three teachers see in the images.

    The student is a new network, or the model when one is given: a pruned one, for instance.

    Args:
        epochs: epochs to train the student.
        max_epochs: epochs that the schedule spans, for trials that stop early; 0 means epochs.
        batch_size: images per step.
        learning_rate: peak learning rate.
        optimizer: sgd or muon.
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
        method: what the student imitates beside the teacher's logits; logits is nothing more.
        student_network: built-in name, torchvision:<name>, or package.module:factory; empty for the teacher's own.
        width: multiplier of the student network's channels.
        start: the student's first weights: the teacher's most important channels, or random; auto takes the teacher's
            where the student is the teacher at fewer channels.
        temperature: softens the logits of teacher and student.
        temperature_schedule: temperature over the run, to temperature_end.
        temperature_end: temperature at the end, unless it is constant.
        alpha: weight of the teacher's part of the loss; the labels have the rest.
        alpha_schedule: alpha over the run, to alpha_end.
        alpha_end: alpha at the end, unless it is constant.
        hint_weight: weight of the layers' part; 0 takes the method's own: features 1, attention 10, relational 10.
        hint_layers: layers to imitate, teacher:student,...; empty pairs them by their maps' size and their depth.
        teacher_weights: weights of several teachers: equal, or by validation accuracy above chance.
        labels: false leaves the training labels unused: images and teacher alone teach.
        cache_teacher: compute the teacher's outputs once and keep them; needs augment none.
        profile: quick or full: what takes the place of numbers that are -1.
        step: whose numbers of the profile these are; empty looks nothing up.
    """
    from pathlib import Path

    from kondense import failure
    from kondense.artifacts.inputs import fetched
    from kondense.artifacts.metadata import model_metadata
    from kondense.distill import stage
    from kondense.distill.config import DistillConfig
    from kondense.profiles import settled

    given = {"dataset": dataset, "teacher": teacher, "model": model, "teacher_2": teacher_2, "teacher_3": teacher_3}
    with failure.told(), fetched(**given):
        values = {
            "epochs": epochs,
            "max_epochs": max_epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "optimizer": optimizer,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "schedule": schedule,
            "warmup_epochs": warmup_epochs,
            "label_smoothing": label_smoothing,
            "augment": augment,
            "averaging": averaging,
            "device": device,
            "precision": precision,
            "compile": compile,
            "seed": seed,
            "method": method,
            "student_network": student_network,
            "width": width,
            "start": start,
            "temperature": temperature,
            "temperature_schedule": temperature_schedule,
            "temperature_end": temperature_end,
            "alpha": alpha,
            "alpha_schedule": alpha_schedule,
            "alpha_end": alpha_end,
            "hint_weight": hint_weight,
            "hint_layers": hint_layers,
            "teacher_weights": teacher_weights,
            "labels": labels,
            "cache_teacher": cache_teacher,
        }
        config = DistillConfig(**settled(values, profile, step))
        stage.run(
            config,
            dataset_dir=Path(dataset.path),
            teacher_dir=Path(teacher.path),
            student_dir=Path(student.path),
            model_dir=Path(model.path) if model else None,
            teacher_2_dir=Path(teacher_2.path) if teacher_2 else None,
            teacher_3_dir=Path(teacher_3.path) if teacher_3 else None,
        )
        made = model_metadata(Path(student.path), title="student {network}", dataset_dir=Path(dataset.path))
        student.metadata.update(made)
