"""A pipeline of two tiny components, to test how a run on this machine goes."""

from kfp import dsl


@dsl.component(base_image="python", install_kfp_package=False, packages_to_install=[])
def write(dataset: dsl.Output[dsl.Dataset], text: str = "a"):
    """Write a file."""
    from pathlib import Path

    Path(dataset.path).mkdir(parents=True)
    Path(dataset.path, "text").write_text(text)


@dsl.component(base_image="python", install_kfp_package=False, packages_to_install=[])
def fit(dataset: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model], metrics: dsl.Output[dsl.Metrics], end: str = ""):
    """Copy the file in capitals, or end in another way."""
    import os
    import signal
    from pathlib import Path

    print("epoch 1/2 train_loss=0.5 validation_accuracy=0.25")
    print("epoch 2/2 train_loss=0.4 validation_accuracy=0.5")
    if end == "error":
        raise ValueError("sparsity must be in [0, 1), but got 1.0.")
    if end == "kill" or (os.path.exists(end) and os.path.basename(end) == "kill-now"):
        os.kill(os.getpid(), signal.SIGKILL)
    if os.path.exists(end) and os.path.basename(end) in ("kill-once", "fail-once"):
        os.unlink(end)
        if os.path.basename(end) == "fail-once":
            raise OSError("the store cannot be reached")
        os.kill(os.getpid(), signal.SIGKILL)
    Path(model.path).mkdir(parents=True)
    Path(model.path, "text").write_text(Path(dataset.path, "text").read_text().upper())
    metrics.log_metric("accuracy", 0.5)


@dsl.pipeline(name="toy")
def toy(text: str = "a", end: str = "", last_end: str = "last"):
    """Write once, fit twice."""
    data = write(text=text).set_display_name("write data").outputs["dataset"]
    fit(dataset=data, end=last_end).set_display_name("fit last")
    fit(dataset=data, end=end).set_display_name("fit first")


@dsl.pipeline(name="toy-candidates")
def toy_candidates(end: str = ""):
    """Write once, fit two candidates, of which one may fail."""
    data = write(text="a").set_display_name("write data").outputs["dataset"]
    fit(dataset=data, end=end).set_display_name("fit own").set_env_variable("KONDENSE_INDEPENDENT", "1")
    fit(dataset=data, end="other").set_display_name("fit other").set_env_variable("KONDENSE_INDEPENDENT", "1")
