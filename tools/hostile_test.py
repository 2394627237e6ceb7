"""Loads files that were made to harm, and counts what they reached.

    python tools/hostile_test.py            # the whole set
    python tools/hostile_test.py --list     # their names

and on the lowest Keras that setup.cfg allows, laid over the installed one:

    pip install --target low --no-deps keras==3.12.0
    PYTHONPATH=low python tools/hostile_test.py

A file counts as held if it is refused by one `ValueError` of at most 2,000 characters, within one
second and 100 MB, with no program run, no other file opened and no byte of one in the message.
"""

import argparse
import base64
import json
import pathlib
import pickle
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
import zlib

from machine import memory_mb

SECRET = "the content of another file"
SECONDS, MEGABYTES, CHARACTERS = 1.0, 100, 2000


def parts(config):
    """The parts of a description in a configuration."""
    return config["config"]["flow"]["parts"]


def layer(config):
    """The first layer in it."""
    return next(p for p in parts(config) if p["kind"] == "layer")["config"]


# --- Configurations. Each changes that of a sound file; `where` is a folder with a SavedModel. ---


def named_layer(module, name, /, **arguments):
    """Puts another layer in the place of the first."""

    def change(config, where):
        config = layer(config)
        config.clear()
        filled = {
            k: v.format(where=where) if isinstance(v, str) else v for k, v in arguments.items()
        }
        config.update(module=module, class_name=name, config=filled, registered_name=None)

    return change


def lambda_activation(config, where):
    """A lambda, which Keras keeps as code."""
    layer(config)["config"]["activation"] = {
        "class_name": "__lambda__",
        "config": {"value": "4wAAAAA="},
    }


def function_of(module, name):
    """Puts a function in the place of an activation."""

    def change(config, where):
        layer(config)["config"]["activation"] = {
            "module": module,
            "class_name": "function",
            "config": name,
            "registered_name": name,
        }

    return change


def typespec(config, where):
    """Keras's notation for types, by which it looks up a class in any module."""
    layer(config)["config"]["activation"] = {
        "class_name": "__typespec__",
        "module": "subprocess",
        "spec_name": "Popen",
        "registered_name": "Popen",
        "config": [["true"]],
    }


def unused_layer(config, where):
    """A layer that loads a SavedModel, and that nothing refers to."""
    one = {"module": "keras.layers", "class_name": "TFSMLayer", "registered_name": None}
    one["config"] = {"filepath": str(where), "call_endpoint": "serve"}
    parts(config).append({"kind": "layer", "config": one})


def unused_part(config, where):
    """A sound part that nothing refers to."""
    parts(config).append(dict(parts(config)[0]))


def doubling(config, where):
    """Parts of two times the one before: 2^30 in the end."""
    flow = config["config"]["flow"]
    arguments = {"bijectors": [], "validate_args": False}
    flow["parts"] = [{"kind": "object", "class": "tfb.Exp", "arguments": {}}]
    for number in range(30):
        pair = {**arguments, "bijectors": [{"$part": number}, {"$part": number}]}
        flow["parts"].append({"kind": "object", "class": "tfb.Chain", "arguments": pair})
    flow["roots"]["distribution"] = {"$part": 30}


def deep(config, where):
    """A list in a list, 5,000 times: more than Python's stack."""
    value = []
    for _ in range(900):
        value = [value]
    config["config"]["flow"]["roots"]["distribution"] = value


def deep_references(config, where):
    """A part of a part, 20,000 times."""
    flow = config["config"]["flow"]
    flow["parts"] = [{"kind": "object", "class": "tfb.Exp", "arguments": {}}]
    for number in range(20_000):
        arguments = {"bijector": {"$part": number}}
        flow["parts"].append({"kind": "object", "class": "tfb.Invert", "arguments": arguments})
    flow["roots"]["distribution"] = {"$part": 20_000}


def array(shape, data):
    """A part of the first array, changed."""

    def change(config, where):
        one = next(p for p in parts(config) if p["kind"] in ("array", "tensor"))
        one.update(shape=shape, dtype="float32", data=base64.b64encode(data).decode())

    return change


def variable(shape):
    """A variable whose values are said to be among the weights."""

    def change(config, where):
        one = next(p for p in parts(config) if p["kind"] in ("array", "tensor"))
        one.clear()
        one.update(kind="variable", name="v", dtype="float32", shape=shape, trainable=True)

    return change


def units(*sizes):
    """Another width of the first network."""

    def change(config, where):
        layer(config)["config"]["hidden_units"] = list(sizes)

    return change


def dense(config, where):
    """A stock layer of 1e6 x 1e6, built by its configuration."""
    one = layer(config)
    one.clear()
    one.update(module="keras.layers", class_name="Dense", registered_name=None)
    one["config"] = {"units": 1_000_000}
    one["build_config"] = {"input_shape": [None, 1_000_000]}


def dense_below_the_sizes(config, where):
    """Sizes that are small, and a product that is not."""
    dense(config, where)
    layer(config)["config"] = {"units": 50_000}
    layer(config)["build_config"] = {"input_shape": [None, 50_000]}


def long_name(config, where):
    """A name of a megabyte, in the hope of a message of one."""
    next(p for p in parts(config) if p["kind"] == "object")["class"] = "x" * 2**20


def compiled(value):
    """Another `compile_config`."""

    def change(config, where):
        config["compile_config"] = value

    return change


_POPEN = {"module": "subprocess", "class_name": "Popen", "config": {"args": ["true"]}}
ZEROS = 400_000_000  # float32: 1.6 GB

CONFIGURATIONS = {
    "TFSMLayer": named_layer("keras.layers", "TFSMLayer", filepath="{where}"),
    "TFSMLayer_by_its_source": named_layer(
        "keras.src.export.tfsm_layer", "TFSMLayer", filepath="{where}"
    ),
    "Lambda": named_layer("keras.layers", "Lambda", function="tanh"),
    "TorchModuleWrapper": named_layer("keras.layers", "TorchModuleWrapper", module="gASVAAAA"),
    "StringLookup_of_a_file": named_layer(
        "keras.layers", "StringLookup", vocabulary="{where}/secret"
    ),
    "TextVectorization_of_a_file": named_layer(
        "keras.layers", "TextVectorization", vocabulary="{where}/secret"
    ),
    "IntegerLookup_of_a_file": named_layer(
        "keras.layers", "IntegerLookup", vocabulary="{where}/secret"
    ),
    "class_of_another_module": named_layer("subprocess", "Popen", args=["true"]),
    "class_of_keras_src": named_layer("keras.src.utils.file_utils", "File", path="{where}/secret"),
    "lambda_activation": lambda_activation,
    "get_file_as_activation": function_of("keras.utils", "get_file"),
    "load_model_as_activation": function_of("keras.saving", "load_model"),
    "system_as_activation": function_of("os", "system"),
    "typespec": typespec,
    "unused_layer": unused_layer,
    "unused_part": unused_part,
    "doubling": doubling,
    "deep": deep,
    "deep_references": deep_references,
    "array_of_1e15": array([10**15], b"x"),
    "array_of_1e15_and_a_zero": array([10**15, 10**15], zlib.compress(bytes(64))),
    "variable_of_1e15": variable([10**15]),
    "variable_of_zeros": variable([ZEROS]),
    "layer_of_1e6": units(1_000_000, 1_000_000),
    "layer_of_1e4": units(20_000, 20_000),
    "stock_layer_of_1e6": dense,
    "stock_layer_of_5e4": dense_below_the_sizes,
    "long_name": long_name,
    "optimizer_of_another_module": compiled({"optimizer": {**_POPEN, "registered_name": "Popen"}}),
    "compile_config_of_numbers": compiled([1, 2, 3]),
    "compile_config_without_optimizer": compiled({"run_eagerly": True}),
    "compile_config_empty_list": compiled([]),
    "compile_config_nonsense": compiled({"optimizer": "no such", "steps_per_execution": 1}),
}


def zeros(config, where):
    """1.6 GB of zeros, in 2 MB. Packed in pieces: nor does the maker need them at once."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(2**20)) for _ in range(4 * ZEROS // 2**20))
    array([4 * ZEROS // 2**20 * 2**18], data + packer.flush())(config, where)


CONFIGURATIONS["zeros"] = zeros


# --- Weights. Each changes a sound HDF5 file, open for writing. ---


def first(file):
    """Path of the first weight."""
    return "conditioners/mlp/vars/0"


def external_storage(file, where):
    """A weight whose bytes are another file's."""
    path, secret = first(file), where / "secret"
    shape = file[path].shape
    del file[path]
    space = [(str(secret), 0, secret.stat().st_size)]
    file.create_dataset(path, shape, "f4", external=space)


def external_layout(file, where):
    """The text that messages quote, from another file."""
    secret = where / "secret"
    size = secret.stat().st_size
    del file["vars/layout"]
    file.create_dataset("vars/layout", (size,), "u1", external=[(str(secret), 0, size)])


def external_link(file, where):
    """A weight that lies in another HDF5 file."""
    import h5py

    del file[first(file)]
    file[first(file)] = h5py.ExternalLink(str(where / "other.h5"), "/x")


def external_group(file, where):
    """A group that lies in another HDF5 file."""
    import h5py

    del file["conditioners"]
    file["conditioners"] = h5py.ExternalLink(str(where / "other.h5"), "/")


def soft_link(file, where):
    """A weight that is another of the same file."""
    import h5py

    del file[first(file)]
    file[first(file)] = h5py.SoftLink("/other_variables/vars/0")


def virtual(file, where):
    """A weight that is put together from other files."""
    import h5py

    path = first(file)
    shape = file[path].shape
    del file[path]
    made = h5py.VirtualLayout(shape, "f4")
    made[...] = h5py.VirtualSource(str(where / "other.h5"), "x", shape)
    file.create_virtual_dataset(path, made)


def huge_layout(file, where):
    """A text of 500 MB that takes no room: it is filled up with zeros when it is read."""
    del file["vars/layout"]
    file.create_dataset("vars/layout", (500_000_000,), "u1", chunks=(1_000_000,), fillvalue=65)


def compressed_layout(file, where):
    """The same, packed."""
    import numpy as np

    del file["vars/layout"]
    file.create_dataset("vars/layout", data=np.zeros(50_000_000, "u1"), compression="gzip")


def huge_weight(file, where):
    """A weight of 1e15 entries that takes no room."""
    del file[first(file)]
    file.create_dataset(first(file), (10**15,), "f4", chunks=(10**6,))


def huge_digests(file, where):
    """As the layout."""
    del file["vars/digests"]
    file.create_dataset("vars/digests", (500_000_000,), "u1", chunks=(1_000_000,))


def loop(file, where):
    """A group inside itself."""
    file["conditioners/again"] = file["conditioners"]


def deep_groups(file, where):
    """Groups in groups."""
    group = file
    for _ in range(2000):
        group = group.create_group("g")
    group["x"] = 1.0


def text_weight(file, where):
    """A weight of strings."""
    import h5py

    shape = file[first(file)].shape
    del file[first(file)]
    file.create_dataset(first(file), shape, h5py.string_dtype())


def long_names_of_weights(file, where):
    """A name of a megabyte."""
    file["conditioners/mlp/vars/" + "x" * 60_000] = 1.0


WEIGHTS = {
    f.__name__: f
    for f in (
        *(external_storage, external_layout, external_link, external_group, soft_link, virtual),
        *(huge_layout, compressed_layout, huge_weight, huge_digests, loop, deep_groups),
        *(text_weight, long_names_of_weights),
    )
}


def archive(**changed):
    """Other members of the archive."""

    def change(members):
        members.update({name.replace("__", "."): value for name, value in changed.items()})

    return change


def _pickled(members):
    members["assets/state.pkl"] = pickle.dumps(print)
    members["model.weights.npz"] = b""


ARCHIVES = {
    "path_out_of_the_archive": lambda members: members.update({"assets/../../x": b"x"}),
    "absolute_path": lambda members: members.update({"/tmp/x": b"x"}),
    "a_program_beside": lambda members: members.update({"run.py": b"import os"}),
    "weights_of_another_format": _pickled,
    "config_deep": lambda members: members.update({"config.json": b"[" * 10**6}),
    "config_of_a_long_number": lambda members: members.update({"config.json": b"1" * 10**6}),
}
PACKED = ("packed_config", "packed_weights")

NAMES = [
    *CONFIGURATIONS,
    *(f"{name}.{ending}" for name in WEIGHTS for ending in ("keras", "weights.h5")),
    *ARCHIVES,
    *PACKED,
]


def model():
    """A small model that has trained a step."""
    import numpy as np

    from tfp_flows import FlowModel, flows

    made = FlowModel(
        flows.real_nvp([4], num_couplings=2, hidden_units=(4, 4), actnorm=True, seed=0)
    )
    made.compile(optimizer="adam")
    made.fit(np.random.default_rng(0).normal(size=(32, 4)).astype("float32"), verbose=0)
    return made


def path_of(name, where):
    """Where a file is."""
    return where / (name if name.endswith((".keras", ".weights.h5")) else f"{name}.keras")


def make(name, sound, where):
    """Writes a hostile file."""
    import h5py

    kind = name.split(".")[0]
    target = path_of(name, where)
    with zipfile.ZipFile(sound) as source:
        members = {n: source.read(n) for n in source.namelist()}
    packing = dict.fromkeys(members, zipfile.ZIP_STORED)
    if kind in CONFIGURATIONS:
        config = json.loads(members["config.json"])
        CONFIGURATIONS[kind](config, where)
        members["config.json"] = json.dumps(config).encode()
    elif kind in WEIGHTS:
        path = where / f"{kind}.h5"
        path.write_bytes(members["model.weights.h5"])
        with h5py.File(path, "r+") as file:
            WEIGHTS[kind](file, where)
        members["model.weights.h5"] = path.read_bytes()
    elif kind in ARCHIVES:
        ARCHIVES[kind](members)
    else:
        member = "config.json" if kind == "packed_config" else "model.weights.h5"
        members[member] += b" " * 500_000_000
        packing[member] = zipfile.ZIP_DEFLATED
    if target.suffix == ".h5":
        target.write_bytes(members["model.weights.h5"])
        return
    with zipfile.ZipFile(target, "w") as file:
        for member, content in members.items():
            file.writestr(member, content, packing.get(member, zipfile.ZIP_STORED), 1)


def peak(reset=False):
    """Most megabytes that this process has held since the last reset."""
    if reset:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmHWM")


class Watch:
    """What is reached while a file is loaded: programs, files beside it, the network."""

    def __init__(self, where):
        import tensorflow as tf

        self.where, self.path, self.reached = str(where), None, []
        sys.addaudithook(self.hear)
        # TensorFlow opens files in C++, which no audit hook hears of.
        tf.saved_model.load = self.told(tf.saved_model.load)
        tf.io.gfile.GFile = self.told(tf.io.gfile.GFile)

    def hear(self, event, arguments):
        """An audit hook."""
        if self.path is None:
            return
        if event in ("subprocess.Popen", "os.system", "os.exec", "socket.connect"):
            self.reached.append(event)
        opened = str(arguments[0]) if event == "open" and arguments else ""
        if opened.startswith(self.where) and opened != str(self.path):
            self.reached.append(f"open {opened}")

    def told(self, function):
        """A function that says that it was called."""

        def call(*args, **kwargs):
            if self.path is not None:
                self.reached.append(getattr(function, "__name__", "open"))
            return function(*args, **kwargs)

        return call


def attack(where, names):
    """The child: loads the files, one after the other, and says in JSON what came of each."""
    import tfp_flows

    warnings.simplefilter("ignore")
    victim = model()
    tfp_flows.load(where / "sound.keras")  # What is done once is not a file's doing.
    watch = Watch(where)
    for name in names:
        path = path_of(name, where)
        before = [v.numpy() for v in (*victim.variables, *victim.optimizer.variables)]
        watch.reached, message, kind = [], "", "loaded"
        megabytes, start, watch.path = peak(reset=True), time.process_time(), path
        try:
            if path.suffix == ".h5":
                victim.load_weights(path)
            else:
                tfp_flows.load(path)
        except BaseException as error:  # Whatever it is, it is what is counted.
            message, kind = str(error), type(error).__name__
        watch.path = None
        after = [v.numpy() for v in (*victim.variables, *victim.optimizer.variables)]
        found = {
            "kind": kind,
            "message": message[:300],
            "characters": len(message),
            "lines": message.count("\n") + 1,
            "seconds": round(time.process_time() - start, 2),
            "megabytes": round(peak() - megabytes),
            "reached": watch.reached,
            "leaked": SECRET[:12] in message,
            "half": any((a != b).any() for a, b in zip(before, after, strict=True)),
        }
        print(json.dumps([name, found]), flush=True)


def held(found):
    """Whether a file did no harm."""
    return (
        found["kind"] == "ValueError"
        and found["characters"] <= CHARACTERS
        and found["lines"] == 1
        and found["seconds"] <= SECONDS
        and found["megabytes"] <= MEGABYTES
        and not found["reached"]
        and not found["leaked"]
        and not found["half"]
    )


def main():
    """Makes the files, and loads each in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("--only", nargs="*", default=NAMES, help="some of the names")
    parser.add_argument("--where", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list:
        print("\n".join(NAMES))
        return 0
    if args.where:
        return attack(args.where, args.only)
    import h5py
    import keras
    import tensorflow as tf

    with tempfile.TemporaryDirectory(prefix="hostile_test_") as folder:
        where = pathlib.Path(folder)
        tf.saved_model.save(tf.Module(), str(where))
        (where / "secret").write_text(f"{SECRET}\n" * 40)
        with h5py.File(where / "other.h5", "w") as other:
            other["x"] = [[1.0] * 4] * 2
        model().save(where / "sound.keras")
        for name in args.only:
            make(name, where / "sound.keras", where)
        through, left = [], list(args.only)
        while left:
            command = [sys.executable, __file__, "--where", folder, "--only", *left]
            child = subprocess.run(command, capture_output=True, text=True, timeout=1200)
            for line in child.stdout.splitlines():
                if not line.startswith("["):
                    continue
                name, found = json.loads(line)
                left.remove(name)
                said = found["message"].split(": ", 2)[-1][:110]
                print(
                    f"{'held' if held(found) else 'NOT HELD'} {name}: {found['kind']}, "
                    f"{found['seconds']:.2f} s, {found['megabytes']} MB: {said}"
                )
                if not held(found):
                    through.append(name)
                    print(f"    {found}")
            if child.returncode and left:
                through.append(left.pop(0))
                print(
                    f"NOT HELD {through[-1]}: died with {child.returncode}, {child.stderr[-300:]}"
                )
    print(
        f"Keras {keras.__version__}: {len(args.only)} hostile files, {len(through)} not held"
        f"{': ' + ', '.join(through) if through else ''}"
    )
    return int(bool(through))


if __name__ == "__main__":
    sys.exit(main())
