"""The parameters of data_prep."""

import dataclasses

from kondense.config import Config, option
from kondense.errors import InputError
from kondense.preprocessing import BILINEAR, DATASET, INTERPOLATIONS, NORMALIZATIONS, check_geometry, normalization_of

SOURCES = {  # data set -> kondense.data.collection.Source
    "fashion_mnist": "kondense.data.fashion_mnist:SOURCE",
    "cifar10": "kondense.data.cifar:CIFAR10",
    "cifar100": "kondense.data.cifar:CIFAR100",
    "digits": "kondense.data.digits:SOURCE",
    "folder": "kondense.data.folder:SOURCE",
}
DATASETS = tuple(SOURCES)
CHANNELS = (0, 1, 3)
CENTER, SQUASH = CROP_MODES = ("center", "squash")
TELL, DROP, REFUSE = DUPLICATES = ("tell", "drop", "error")
AUTO, TENSORS, SHARDS = STORAGES = ("auto", "tensors", "shards")
PPM, PNG = ENCODINGS = ("ppm", "png")
BUCKETS = ("s3://", "minio://")  # addresses of shards
MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs


@dataclasses.dataclass(frozen=True)
class DataPrepConfig(Config):
    """The images and their split."""

    dataset_name: str = option(
        "fashion_mnist",
        "data set: folder is a folder of images per class; digits needs no files, the others are downloaded unless the"
        " source holds their files",
        choices=DATASETS,
    )
    source: str = option(
        "",
        "location of its files: a directory, s3://bucket/prefix or minio://bucket/prefix; empty searches the usual"
        " directories",
    )
    validation_size: int = option(
        0,
        "number of training images kept for validation; 0 takes one in twelve (5,000 of 60,000), at least one of every"
        " class",
        interval="[0, inf)",
    )
    test_fraction: float = option(
        0.2, "fraction kept for the test if the data set has no test images (digits, most folders)", interval="(0, 1)"
    )
    limit: int = option(0, "maximum number of training images and of test images; 0 takes all", interval="[0, inf)")
    image_size: int = option(
        0, "side in pixels to which images are resized; 0 keeps the size (digits: 16)", interval="[0, 4096]"
    )
    image_width: int = option(
        0, "width in pixels if images are not square; image_size is their height then, 0: square", interval="[0, 4096]"
    )
    resize: int = option(
        0,
        "size in pixels to which the shorter side is resized before the centre is cropped to image_size (256 before 224"
        " for many pretrained networks); 0 crops to the aspect ratio and then resizes",
        interval="[0, 8192]",
    )
    crop_mode: str = option(
        CENTER, "center keeps the aspect ratio and cuts the edges, squash resizes both sides", choices=CROP_MODES
    )
    interpolation: str = option(BILINEAR, "filter of the resizing, antialiased", choices=INTERPOLATIONS)
    normalization: str = option(
        DATASET,
        "mean and standard deviation that images are normalised with: those of the training images (dataset), of"
        " ImageNet, 0.5 and 0.5 (half), or 0 and 1 (none); a pretrained network needs those it was trained with",
        choices=tuple(NORMALIZATIONS),
    )
    mean: str = option(
        "", "mean instead of that of normalization, for pixels in [0, 1]: a number, or 0.485,0.456,0.406 by channel"
    )
    std: str = option("", "standard deviation instead of that of normalization, likewise")
    channels: int = option(0, "1 converts images to grey, 3 to colour; 0 keeps the channels", choices=CHANNELS)
    duplicates: str = option(
        TELL,
        "what happens to images that are in two splits: tell counts them in the log, drop leaves them out of the split"
        " that is judged on less (train, then validation), error refuses them",
        choices=DUPLICATES,
    )
    max_bad: int = option(
        0, "maximum number of unreadable pictures of a folder, which are left out and counted", interval="[0, inf)"
    )
    max_pixels: int = option(
        MAX_PIXELS, "maximum number of pixels of one picture, checked before it is decoded", interval="[1, 178956970]"
    )
    storage: str = option(
        AUTO,
        "tensors keep the decoded images in one file per split, which every step loads; shards keep them encoded in tar"
        " files, which the steps stream; auto takes shards for more than max_tensor_bytes",
        choices=STORAGES,
    )
    max_tensor_bytes: int = option(
        2**31, "maximum number of bytes of decoded images that auto keeps as tensors", interval="[0, inf)"
    )
    shards_at: str = option(
        "",
        "where shards are written: s3://bucket/prefix or minio://bucket/prefix; the Dataset artifact is then the index"
        " alone; empty: where KONDENSE_SHARDS says (on a cluster: in the bucket of the artifacts), else into the"
        " artifact",
    )
    shard_encoding: str = option(
        PPM,
        "how shards keep the images, without loss: ppm, their plain pixels, is decoded faster than JPEG; png is decoded"
        " more slowly than JPEG, and takes 15 % less space for photographs, several times less for drawings",
        choices=ENCODINGS,
    )
    shard_bytes: int = option(
        2**26, "size of a shard in bytes, from which the next one is begun", interval="[1024, 1073741824]"
    )
    shuffle_bytes: int = option(
        2**33,
        "bytes of shards within which training shuffles images; fewer than the data set's for a local cache that is"
        " smaller than it",
        interval="[1024, inf)",
    )
    seed: int = option(0, "seed of the split", interval="[0, 2147483647]")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset_name == "folder" and not self.source:
            raise InputError("source must be the folder of images if dataset_name is folder, but it is empty.")
        if self.dataset_name == "digits" and self.source:
            raise InputError(f"source must be empty for digits (they come with scikit-learn), but got {self.source!r}.")
        if self.image_width and not self.image_size:
            raise InputError(f"image_size must be the height if image_width is {self.image_width}, but it is 0.")
        if (self.resize or self.crop_mode == SQUASH) and not self.image_size:
            named = f"resize is {self.resize}" if self.resize else f"crop_mode is {SQUASH}"
            raise InputError(f"image_size must be the size of the images if {named}, but it is 0.")
        if self.resize and self.crop_mode == SQUASH:
            raise InputError(f"resize must be 0 if crop_mode is {SQUASH}, but got {self.resize}.")
        if self.shards_at and not self.shards_at.startswith(BUCKETS):
            raise InputError(
                f"shards_at must be s3://bucket/prefix or minio://bucket/prefix, but got {self.shards_at}."
            )
        check_geometry(self.size, self.steps, self.interpolation)
        mean, _ = self.normalised
        if self.channels and len(mean) > 1 and len(mean) != self.channels:
            raise InputError(f"channels must be {len(mean)} for {len(mean)} numbers of mean, but got {self.channels}.")

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width of the images; () keeps them."""
        return (self.image_size, self.image_width or self.image_size) if self.image_size else ()

    @property
    def steps(self) -> tuple[int, ...]:
        """The sizes before the crop, as ``Preprocessing.resize`` has them."""
        return self.size if self.crop_mode == SQUASH else (self.resize,) if self.resize else ()

    @property
    def normalised(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, per channel or for all; () and () are measured."""
        return normalization_of(self.normalization, self.mean, self.std)

    def in_shards(self, decoded_bytes: int) -> bool:
        """Return whether images of so many bytes in all are kept as shards."""
        return self.storage == SHARDS or (self.storage == AUTO and decoded_bytes > self.max_tensor_bytes)
