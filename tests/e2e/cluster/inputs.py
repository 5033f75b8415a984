"""The data set and the teacher of the Experiments: prepared here with the project's own stages, uploaded once."""

from pathlib import Path

from kondense.store.open import open_store

from tests.e2e.cluster.session import Session

DATASET, TEACHER = "inputs/dataset", "inputs/teacher"


def ensure(session: Session) -> tuple[str, str]:
    """Return the URIs of the data set and the teacher in the object store."""
    from kondense.data_prep.config import DataPrepConfig
    from kondense.data_prep.stage import run as prepare
    from kondense.train.config import TrainConfig
    from kondense.train.stage import run as train

    places = session.place(DATASET), session.place(TEACHER)
    if session.store(places[1]).exists("model.json"):
        return places
    options, scratch = session.options, session.scratch / "inputs"
    session.say(f"preparing {options.dataset} and a teacher for the Experiments")
    session.undo("data set and teacher of the Experiments", lambda: session.clear(session.place("inputs")))
    prepare(
        DataPrepConfig(dataset_name=options.dataset, image_size=options.image_size), dataset_dir=scratch / "dataset"
    )
    config = TrainConfig(network=options.network, epochs=1, device="cpu")
    train(config, dataset_dir=scratch / "dataset", model_dir=scratch / "teacher")
    for place, name in zip(places, ("dataset", "teacher"), strict=True):
        upload(scratch / name, place)
    return places


def upload(directory: Path, uri: str) -> None:
    """Put the files of a directory below a URI."""
    store = open_store(uri)
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            store.upload_file(path.relative_to(directory).as_posix(), path)
