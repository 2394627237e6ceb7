"""The layout of the package: which part may use which, and what every public name owes."""

import ast
import importlib
import importlib.metadata
import inspect
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import tfp_flows
from tfp_flows import _requirements

ROOT = pathlib.Path(tfp_flows.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

# Part -> the parts that it imports, as measured: another arrow is to be drawn here first. Helpers
# of the top level (`_files`) import no part, and are free to all.
HELPERS = {"_arguments", "_checks", "_configured", "_files", "_optional", "_private", "_solve"}
ARROWS = {
    "version": set(),
    "_requirements": set(),
    **{helper: set() for helper in HELPERS},
    "masks": set(),
    "distribute": set(),
    "metrics": set(),
    "plots": set(),
    "elementwise": set(),
    "conditioners": {"masks"},
    "bijectors": {"masks", "elementwise"},
    "preprocessing": {"bijectors"},
    "distributions": {"bijectors", "elementwise"},
    "flows": {"masks", "elementwise", "bijectors", "conditioners", "distributions"},
    "saving": {"elementwise", "version"},
    "export": {"preprocessing", "version"},
    "objectives": {"bijectors"},
    "models": {"bijectors", "distributions", "objectives", "preprocessing", "saving", "export"},
    "tables": {
        "conditioners",
        "elementwise",
        "bijectors",
        "distributions",
        "models",
        "plots",
        "saving",
    },
    "pretrained": {"saving"},
    "estimators": {"flows", "models", "preprocessing"},
    "testing": {"bijectors", "models"},
}


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    """Parts of the package that a file imports, and whether that is at its top level."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("tfp_flows."):
                yield name.split(".")[1], id(node) in top


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_go_one_way(path):
    part = part_of(path)
    if part == "__init__":
        return
    allowed = ARROWS[part] | HELPERS | {part}
    wrong = {name for name, _ in imports(path)} - allowed
    assert not wrong, f"{part} may not use {sorted(wrong)}"


def test_every_arrow_is_used():
    used = {(part_of(path), name) for path in SOURCES for name, _ in imports(path)}
    drawn = {(part, name) for part, names in ARROWS.items() for name in names}
    assert drawn <= used


def test_every_part_has_its_arrows():
    assert {part_of(path) for path in SOURCES} - {"__init__"} <= set(ARROWS)


def test_masks_are_numpy_alone():
    modules = {
        name.split(".")[0]
        for node in ast.walk(ast.parse((ROOT / "masks.py").read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name]
    }
    assert modules <= {"numpy", "operator"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_assert_in_library_code(path):
    """Python -O drops them."""
    found = [n.lineno for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Assert)]
    assert not found, f"assert in {path} at lines {found}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_keras_2(path):
    """tf_keras and `tf.keras` are what TFP's retired networks are built on."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr == "keras":
            assert not (isinstance(node.value, ast.Name) and node.value.id == "tf"), path
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [getattr(node, "module", None)] + [alias.name for alias in node.names]
            assert not any(name and name.split(".")[0] == "tf_keras" for name in names), path


def test_private_names_have_one_door():
    """An upgrade of TensorFlow or Keras has one file to read."""
    for path in SOURCES:
        if path.name != "_private.py":
            text = path.read_text()
            assert "tensorflow.python" not in text and "from keras.src" not in text, path


def public():
    for module in pkgutil.iter_modules(tfp_flows.__path__, "tfp_flows."):
        if module.name.split(".")[1].startswith("_"):
            continue
        namespace = importlib.import_module(module.name)
        for name in getattr(namespace, "__all__", ()):
            value = getattr(namespace, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f"{module.name.split('.')[1]}.{name}", value


PUBLIC = dict(public())


@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstring(name):
    """First line: what it is. And an example: a doctest, or a block where none can run."""
    doc = inspect.getdoc(PUBLIC[name])
    assert doc, f"{name} has no docstring"
    first = doc.splitlines()[0]
    assert first.endswith((".", ":")), f"{name}: {first!r}"
    # Abstract: their subclasses have examples.
    base = name in ("bijectors.FlowBijector", "conditioners.Conditioner")
    assert base or ">>> " in doc or "```python" in doc, f"{name} has no example"


def test_public_names_of_the_design():
    for names in (
        "FlowModel bijectors conditioners elementwise flows masks testing",
        "flows.nice flows.real_nvp flows.glow flows.maf flows.iaf",
        "bijectors.AdditiveCoupling bijectors.AffineCoupling bijectors.Coupling bijectors.Rescale",
        "bijectors.ActNorm bijectors.InvertibleConv1x1 bijectors.Squeeze bijectors.FactorOut",
        "bijectors.MaskedAutoregressive bijectors.InverseAutoregressive testing.assert_bijector",
        "FlowModel.initialize FlowModel.log_prob FlowModel.sample FlowModel.export",
    ):
        for name in names.split():
            value = tfp_flows
            for step in name.split("."):
                value = getattr(value, step)
    assert tfp_flows.__version__.count(".") == 2


def test_all_is_sorted_and_complete():
    for path in SOURCES:
        if path.name != "__init__.py":
            continue
        name = ".".join(["tfp_flows", *path.relative_to(ROOT).parts[:-1]])
        module = importlib.import_module(name)
        exported = getattr(module, "__all__", None)
        assert exported is not None, f"{name} has no __all__"
        assert len(set(exported)) == len(exported)
        for entry in exported:
            assert hasattr(module, entry), f"{name}.{entry}"


# --- What is installed. ---


def installed(monkeypatch, **versions):
    real = importlib.metadata.version

    def version(name):
        value = versions.get(name.replace("-", "_"), ...)
        if value is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name) if value is ... else value

    monkeypatch.setattr(_requirements.metadata, "version", version)


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({"numpy": "2.4.1"}, r"needs numpy>=1.26,<2.4, found 2.4.1 \(NumPy 2.4 breaks"),
        ({"tensorflow": "2.16.1"}, "needs tensorflow>=2.20,<2.22, found 2.16.1"),
        ({"tensorflow": "2.22.0rc1"}, "needs tensorflow>=2.20,<2.22, found 2.22.0rc1"),
        ({"keras": "2.15.0"}, "needs keras>=3.12,<4.0, found 2.15.0"),
        ({"tensorflow_probability": "0.24.0"}, "needs tensorflow-probability>=0.25,<0.26"),
        ({"tf_keras": None}, r"needs tf_keras \(TFP 0.25 does not import without it\)"),
        ({"tensorflow_probability": None}, "needs tensorflow-probability"),
        ({"tensorflow": None, "tensorflow_cpu": None}, "needs tensorflow "),
    ],
)
def test_unsupported_combination_says_what_to_install(monkeypatch, versions, message):
    installed(monkeypatch, **versions)
    with pytest.raises(ImportError, match=message) as error:
        _requirements.check()
    text = str(error.value)
    assert "\n" not in text and 'pip install "tensorflow>=2.20,<2.22"' in text


def test_supported_combinations(monkeypatch):
    _requirements.check()
    installed(monkeypatch, tensorflow="2.20.0", numpy="1.26.4", keras="3.12.0")
    _requirements.check()
    installed(monkeypatch, tensorflow=None, tensorflow_cpu="2.21.0")
    _requirements.check()


def test_other_keras_backend(monkeypatch):
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ImportError, match="TensorFlow backend, found 'torch': set KERAS_BACKEND"):
        _requirements.check()


def test_the_check_comes_before_everything_else():
    """On a bad installation the import itself must fail with that line, not with another."""
    program = (
        "import importlib.metadata as m, sys\n"
        "real = m.version\n"
        "m.version = lambda name: '9.9' if name == 'numpy' else real(name)\n"
        "try:\n    import tfp_flows\n"
        "except ImportError as error:\n    print(error)\n"
        "print('tensorflow' in sys.modules)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
        check=True,
    ).stdout.splitlines()
    assert out[0].startswith("tfp_flows needs numpy>=1.26,<2.4, found 9.9")
    assert out[1] == "False", "TensorFlow was imported first"
