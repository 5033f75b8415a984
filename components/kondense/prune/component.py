"""The KFP component of prune."""

from kfp import dsl

from kondense.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def prune(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    pruned: dsl.Output[dsl.Model],
    teacher: dsl.Input[dsl.Model] = None,
    epochs: int = 4,
    max_epochs: int = 0,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    optimizer: str = "auto",
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
    method: str = "l1",
    sparsity: float = 0.75,
    target: str = "macs",
    scope: str = "auto",
    pruning_schedule: str = "cubic",
    steps: int = 0,
    pruning_end: float = 0.6,
    granularity: str = "weights",
    pattern: str = "2:4",
    rewind_epochs: int = 1,
    penalty: float = 1e-3,
    penalty_growth: float = 100.0,
    round_to: int = 8,
    layers: str = "",
    exclude: str = "",
    reconstruct: bool = True,
    max_validation_drop: float = 1.0,
    trial_epochs: int = 0,
    criterion: str = "l2",
    slice: float = 0.05,
    sparse_epochs: int = 1,
    sparse_penalty: float = 1e-3,
    latency_batch_size: int = 64,
    sensitivity: bool = False,
    temperature: float = 4.0,
    alpha: float = 0.9,
    profile: str = "quick",
    step: str = "",
) -> None:
    """Remove weights or whole channels in steps and fine-tune; a teacher, when given, joins the fine-tuning loss.

    Args:
        epochs: epochs of fine-tuning in all, one after each step and the rest after the last.
        max_epochs: epochs that the schedule spans, for trials that stop early; 0 means epochs.
        batch_size: images per step of fine-tuning.
        learning_rate: peak learning rate of fine-tuning.
        optimizer: sgd or muon, or auto: muon where channels leave.
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
        method: magnitude zeroes single weights; l1 removes whole channels.
        sparsity: fraction removed: of the weights, or of what `target` counts.
        target: what `sparsity` is a fraction of when channels are removed.
        scope: compare scores across the network, within each layer, or across it by LAMP; auto is lamp with magnitude.
        pruning_schedule: sparsity over the steps.
        steps: steps to the full sparsity; 0: 1 for channels (3 unless reconstruct), 100 for weights. Channels leave
            between epochs, so at most one step per epoch is made.
        pruning_end: fraction of the epochs after which masks have their full sparsity; the rest tunes.
        granularity: what masks zero as one.
        pattern: n:m of method nm, of every m consecutive inputs, n stay.
        rewind_epochs: epoch of the model's own training that lottery goes back to.
        penalty: pull towards the budgets with constrained, at first.
        penalty_growth: how many times harder that pull is at last.
        round_to: channel counts are multiples of it; odd counts cost time.
        layers: fractions of single layers, by type or module name, such as Conv2d=0.8,Linear=0.95,fc2=0.5;
            a name outweighs a type. Methods that remove channels remove this fraction of the layer's.
        exclude: layers that stay whole, by type or module name: conv1,blocks.0.
        reconstruct: after channels leave, fit the layers that read them to their old outputs by least squares.
        max_validation_drop: validation accuracy that pruning may cost, right after it, a fraction; sparsity is then
            the most that is removed; 1 sets no bound.
        trial_epochs: epochs that a network tried for max_validation_drop is fine-tuned, on top of epochs.
        criterion: which channels of a group greedy removes first.
        slice: fraction of the whole that one removal of greedy saves.
        sparse_epochs: epochs, of epochs, that bn_scale trains the scales towards zero.
        sparse_penalty: weight of the sum of the scales in bn_scale's loss.
        latency_batch_size: images in the batch that target=latency times.
        sensitivity: also measure the accuracy with each layer pruned alone.
        temperature: softens the logits of teacher and student in the loss.
        alpha: weight of the teacher's logits in the loss; without a teacher the unpruned network teaches; 0: labels
            only.
        profile: quick or full: what takes the place of numbers that are -1.
        step: whose numbers of the profile these are; empty looks nothing up.
    """
    from pathlib import Path

    from kondense import failure
    from kondense.artifacts.inputs import fetched
    from kondense.artifacts.metadata import model_metadata
    from kondense.profiles import settled
    from kondense.prune import stage
    from kondense.prune.config import PruneConfig

    with failure.told(), fetched(dataset=dataset, model=model, teacher=teacher):
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
            "sparsity": sparsity,
            "target": target,
            "scope": scope,
            "pruning_schedule": pruning_schedule,
            "steps": steps,
            "pruning_end": pruning_end,
            "granularity": granularity,
            "pattern": pattern,
            "rewind_epochs": rewind_epochs,
            "penalty": penalty,
            "penalty_growth": penalty_growth,
            "round_to": round_to,
            "layers": layers,
            "exclude": exclude,
            "reconstruct": reconstruct,
            "max_validation_drop": max_validation_drop,
            "trial_epochs": trial_epochs,
            "criterion": criterion,
            "slice": slice,
            "sparse_epochs": sparse_epochs,
            "sparse_penalty": sparse_penalty,
            "latency_batch_size": latency_batch_size,
            "sensitivity": sensitivity,
            "temperature": temperature,
            "alpha": alpha,
        }
        config = PruneConfig(**settled(values, profile, step))
        stage.run(
            config,
            dataset_dir=Path(dataset.path),
            model_dir=Path(model.path),
            pruned_dir=Path(pruned.path),
            teacher_dir=Path(teacher.path) if teacher else None,
        )
        made = model_metadata(Path(pruned.path), title="{method}", dataset_dir=Path(dataset.path))
        pruned.metadata.update(made)
