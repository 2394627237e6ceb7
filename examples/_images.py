"""What `train_images.py` needs besides the flow: loading, checks and pictures."""

import pathlib
import zipfile

import matplotlib
import numpy as np
from _command import InputError

matplotlib.use("Agg")
import matplotlib.pyplot as plt

KERAS_SETS = ("mnist", "fashion_mnist", "cifar10")
TRAIN_KEYS = ("x_train",)
HELD_OUT_KEYS = ("x_test", "x_heldout")
DIGITS_HELD_OUT = 297


# --- Loading. ---


def load(name):
    """Loads training and held-out images.

    Args:
      name: `"digits"`, a name in `KERAS_SETS`, or the path of a `.npz` file with the keys
        `x_train` and `x_test` (or `x_heldout`).

    Returns:
      Two arrays uint8 `[n, H, W, C]`, and the number of levels of a pixel.

    Raises:
      InputError: if there is no such data set, or it holds no such images.
    """
    if name == "digits":
        from sklearn.datasets import load_digits

        images = load_digits().images.astype("uint8")[..., None]
        order = np.random.default_rng(0).permutation(len(images))
        return images[order[DIGITS_HELD_OUT:]], images[order[:DIGITS_HELD_OUT]], 17
    if name in KERAS_SETS:
        import keras

        try:
            (train, _), (held_out, _) = getattr(keras.datasets, name).load_data()
        except Exception as error:
            raise InputError(
                f"--data {name}: keras.datasets could not fetch it ({error}). Without a network "
                "give a file: --data path.npz with the keys x_train and x_test."
            ) from error
        return as_images(train, name), as_images(held_out, name), 256
    if not name.endswith(".npz"):
        raise InputError(
            f"--data {name}: expected digits, {', '.join(KERAS_SETS)} or the path of a .npz file."
        )
    arrays = read_npz(name)
    train = as_images(pick(arrays, TRAIN_KEYS, name), f"{name}: x_train")
    held_out = as_images(pick(arrays, HELD_OUT_KEYS, name), f"{name}: held-out images")
    if train.shape[1:] != held_out.shape[1:]:
        raise InputError(
            f"{name}: training images are {text(train.shape[1:])}, held-out ones "
            f"{text(held_out.shape[1:])}: they must be of one size."
        )
    return train, held_out, 256


def load_to_score(paths, shape, levels):
    """Loads images from picture files and `.npz` files, to be scored.

    Args:
      paths: file names. Of an `.npz` file the held-out images are taken, or its only array.
      shape: `(H, W, C)` of the trained model.
      levels: how many levels its pixels have.

    Returns:
      A list of names, and an array uint8 `[n, H, W, C]`.
    """
    names, parts = [], []
    for path in paths:
        if str(path).endswith(".npz"):
            arrays = read_npz(path)
            keys = HELD_OUT_KEYS if len(arrays) > 1 else tuple(arrays)
            images = as_images(pick(arrays, keys, path), path)
            names += [f"{path}[{n}]" for n in range(len(images))]
        else:
            images = _read_picture(path, shape[2])
            names.append(str(path))
        if images.shape[1:] != tuple(shape):
            raise InputError(
                f"{path}: an image of {text(images.shape[1:])}, but the model was trained on "
                f"{text(shape)}. Crop or resize it, or score with another model (--out)."
            )
        if images.max() >= levels:
            raise InputError(
                f"{path}: pixels up to {images.max()}, but the model was trained on {levels} "
                f"levels, 0 to {levels - 1}. Rescale the images to them."
            )
        parts.append(images)
    return names, np.concatenate(parts)


def read_npz(path):
    """Reads a `.npz` file as a dictionary of arrays."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    try:
        with np.load(path, allow_pickle=False) as file:
            # Labels and the like may be of any dtype; only what is asked for is read.
            return {key: file[key] for key in file.files if not key.startswith("y_")}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"{path}: cannot be read as a .npz file ({error}).") from error


def pick(arrays, keys, path):
    """The first of `keys` that is in `arrays`."""
    for key in keys:
        if key in arrays:
            return arrays[key]
    raise InputError(
        f"{path}: expected an array named {' or '.join(keys)}, found "
        f"{', '.join(sorted(arrays)) or 'none'}. Save it by np.savez(path, {keys[0]}=images, ...)."
    )


def as_images(array, name):
    """Checks that an array holds 8-bit images, and returns it as uint8 `[n, H, W, C]`."""
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise InputError(
            f"{name}: expected images [n, H, W], [n, H, W, 1] or [n, H, W, 3], got the shape "
            f"{list(array.shape)}."
        )
    if not len(array):
        raise InputError(f"{name}: holds no images.")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"{name}: expected integer pixels from 0 to 255, got {array.dtype}. Images in [0, 1]: "
            "(255 * images).round().astype('uint8')."
        )
    if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        raise InputError(
            f"{name}: expected pixels from 0 to 255, got {array.min()} to {array.max()}."
        )
    return array.astype(np.uint8, copy=False)


def pad(images, multiple):
    """Pads images with zeros, on all sides alike, to sizes that are multiples of `multiple`."""
    margins = [-size % multiple for size in images.shape[1:3]]
    return np.pad(images, [(0, 0), *((m // 2, m - m // 2) for m in margins), (0, 0)])


def crop(images, shape):
    """Undoes `pad`."""
    top, left = ((images.shape[n + 1] - shape[n]) // 2 for n in range(2))
    return images[:, top : top + shape[0], left : left + shape[1]]


def text(shape):
    """A shape as people write it."""
    return " x ".join(map(str, shape))


def _read_picture(path, channels):
    from PIL import Image, UnidentifiedImageError

    if not pathlib.Path(path).is_file():
        raise InputError(f"{path}: there is no such file.")
    try:
        with Image.open(path) as picture:
            picture = picture.convert("L" if channels == 1 else "RGB")
            return as_images(np.asarray(picture)[None], path)
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: neither a picture nor a .npz file.") from error


# --- Pictures. ---


def grid(images, columns):
    """Puts images `[n, H, W, C]` side by side, with a margin around each."""
    images = images[: max(1, len(images) // columns) * columns]
    missing = -len(images) % columns
    padded = np.pad(images, [(0, missing), (1, 1), (1, 1), (0, 0)])
    height, width, channels = padded.shape[1:]
    tiles = padded.reshape(-1, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(-1, columns * width, channels)


def save_grids(path, panels, levels, columns=8):
    """Writes grids of images beside each other.

    Args:
      path: file to write.
      panels: list of (title, images).
      levels: how many levels a pixel has.
      columns: images in a row of a grid.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 5.3), squeeze=False)
    for axis, (title, images) in zip(axes[0], panels, strict=True):
        show(axis, grid(images, columns), levels)
        axis.set_title(title)
    save(figure, path)


def save_curve(path, rows, dims_ratio, title):
    """Writes the training curve.

    Args:
      path: file to write.
      rows: the rows of `history.csv`, as dictionaries of floats.
      dims_ratio: factor from the bits/dim in the history to those of the original images.
      title: title of the picture.
    """
    figure, axis = plt.subplots(figsize=(7, 4.4))
    epochs = np.arange(1, len(rows) + 1)
    for key, label in [("bits_per_dim", "training"), ("val_bits_per_dim", "held out")]:
        values = [dims_ratio * row[key] for row in rows]
        axis.plot(epochs, values, marker="." if len(rows) < 40 else None, label=label)
    # The first epochs start far up and would flatten all that follows.
    held_out = [dims_ratio * row["val_bits_per_dim"] for row in rows]
    low, high = min(held_out), held_out[len(held_out) // 10]
    axis.set_ylim(low - 0.15 * (high - low) - 0.02, high + 0.15 * (high - low) + 0.02)
    axis.set(xlabel="epoch", ylabel="bits/dim (lower is better)", title=title)
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


def show(axis, image, levels):
    """Draws one array `[H, W, C]`."""
    if image.shape[-1] == 1:
        axis.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=levels - 1)
    else:
        axis.imshow(image / (levels - 1))
    axis.axis("off")


def save(figure, path):
    """Writes a figure."""
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
