"""What `FlowModel` writes and reads: files, weights, exports."""

import os
import warnings

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import _private
from tfp_flows._files import written_whole
from tfp_flows.export import export
from tfp_flows.models.variables import layout_of, paths_of, repeats_of, unrolled_layout_of
from tfp_flows.objectives import Objective
from tfp_flows.saving import describe, rebuild, weights
from tfp_flows.saving.file import weights_member
from tfp_flows.saving.layers import check_optimizer_config
from tfp_flows.saving.messages import shortened

tfd = tfp.distributions

# The arguments of `compile` that a file keeps.
_COMPILED = (
    "optimizer",
    "run_eagerly",
    "steps_per_execution",
    "jit_compile",
    "micro_batch_size",
)


class Persistence:
    """The part of `FlowModel` that saves, loads and exports."""

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """`keras.Model.save`: the distribution, its weights and the optimizer's state in one file.

        Stock TFP, this package, Keras layers and registered classes of your own are described
        (see `tfp_flows.saving`); `keras.models.load_model` gives back the same distribution, and
        training goes on as if there had been no save. To load a file runs no code from it.

        Args:
          filepath: path that ends in `.keras`, on a local file system. The file appears there
            when it is complete and on the disk. A link stays one, and what it points to is
            replaced; a file that is replaced hands on its mode.
          overwrite: whether a file that is there is replaced.
          zipped: `True` or `None`: the file is an archive.
          **kwargs: `include_optimizer` has no effect, as in Keras.

        Raises:
          ValueError: naming the part that no file can describe (a lambda, a class that is not
            registered), or for another ending.
          FileExistsError: if there is a file and `overwrite` is `False`.
          OSError: if it cannot be written; a file that was there is still there then.
        """
        if not str(filepath).endswith(".keras"):
            raise ValueError(
                f"FlowModel.save: expected a path that ends in .keras, got '{filepath}'. For "
                "serving use `export`, for weights alone `save_weights`."
            )
        kwargs.pop("include_optimizer", None)
        if kwargs or zipped not in (None, True):
            wrong = ", ".join(kwargs) or f"zipped={zipped}"
            raise ValueError(
                f"FlowModel.save: got {wrong}; a .keras file is an archive, and there is nothing "
                "else to choose. Leave it out."
            )
        self.build()
        with (
            written_whole(filepath, owner="FlowModel.save", overwrite=overwrite) as partial,
            open(partial, "wb") as file,
        ):
            _private.write_archive(self, file)

    def save_weights(self, filepath, overwrite=True, **kwargs):
        """`keras.Model.save_weights`, also before the model was ever called.

        The file appears under its name when it is complete and on the disk, as that of `save`.
        Beside each weight it holds its SHA-256, which is compared when it is loaded.
        """
        self.build()
        if kwargs.get("max_shard_size") is not None or not str(filepath).endswith(".weights.h5"):
            super().save_weights(filepath, overwrite=overwrite, **kwargs)
            return
        # HDF5 crashes on a full disk (h5py 3.14): it must not come to that.
        held = self.variables + (self.optimizer.variables if self.compiled else [])
        with written_whole(
            filepath,
            owner="FlowModel.save_weights",
            overwrite=overwrite,
            room=sum(4096 + v.value.shape.num_elements() * v.value.dtype.size for v in held),
        ) as partial:
            _private.write_weights(self, partial, **kwargs)

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """`keras.Model.load_weights`, also before the model was ever called.

        All is looked at before the first weight is changed: every array of the file against its
        SHA-256, and the file's weights against the model's, the optimizer's included. A file
        without digests (of version 0.1, or in shards) is loaded with a warning. It is read on its
        own: links to and storage in other files are refused. The weights of a model whose steps
        are in a loop (`bijectors.Repeat`) are those of one with the steps one after another, and
        the other way round; of the optimizer's state that is not so.

        Args:
          filepath: path that ends in `.weights.h5` or `.keras`.
          skip_mismatch: whether to load what fits, of a file of another model.
          **kwargs: as `keras.Model.load_weights`.

        Raises:
          FileNotFoundError: if there is nothing at `filepath`.
          ValueError: if the file is damaged, refers to another, or is of another model; the
            message names the first part that differs, and no weight is changed.
        """
        self.build()
        path = os.fspath(filepath)
        if not path.endswith((".weights.h5", ".keras")):
            super().load_weights(path, skip_mismatch=skip_mismatch, **kwargs)
            return
        try:
            with weights.opened(path if path.endswith(".h5") else weights_member(path)) as file:
                weights.check_bytes(file)
                in_loop = repeats_of(self.distribution) or weights.has_loops(file)
                if in_loop and not skip_mismatch and not weights.has_layout_of(file, self):
                    weights.load_unrolled(file, unrolled_layout_of(self))
                    self._warn_of_optimizer(file)
                    return
                if self.compiled and weights.holds_optimizer(file):
                    # Keras leaves out the state of an optimizer that has no variables yet.
                    self._build_optimizer()
                if not skip_mismatch:
                    weights.check_model(file, self, skip=kwargs.get("objects_to_skip") or ())
        except ValueError as error:
            owner = f"FlowModel.load_weights: '{shortened(path, 300)}'"
            raise ValueError(f"{owner}: {shortened(error)}") from error
        with weights.already_checked():
            super().load_weights(path, skip_mismatch=skip_mismatch, **kwargs)

    def _warn_of_optimizer(self, file):
        if self.compiled and weights.holds_optimizer(file):
            warnings.warn(
                f"FlowModel '{self.name}': of the file and this model one has its steps in a loop: "
                "the weights are loaded, and the optimizer keeps its own state.",
                stacklevel=3,
            )

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        # What tf.train.Checkpoint saves. It does not see layers that are kept in a list (Keras
        # 3.15), and would save none of the weights, without a word.
        children = super()._trackable_children(save_type, **kwargs)
        if save_type == "checkpoint":
            children["distribution"] = self._distribution
        return children

    def _layout(self):
        """What each weight is, for files."""
        return layout_of(self)

    def _unrolled_layout(self):
        """The lines by which a model without loops finds its weights in a file of this one."""
        if not repeats_of(self.distribution):
            return None
        known, number = vars(self).get("_unrolled_lines"), len(self.variables)
        if known is None or known[0] != number:  # A context network may be built later.
            paths, lines = paths_of(self), []
            for entry in unrolled_layout_of(self):
                index = ",".join(map(str, entry.index)) or "-"
                lines.append(f"{paths[id(entry.variable)]} {index} {entry.line}")
            object.__setattr__(self, "_unrolled_lines", (number, lines))
        return self._unrolled_lines[1]

    def save_own_variables(self, store):
        """Keeps, for `load_own_variables`, what each weight of the model is."""
        super().save_own_variables(store)
        weights.store_checks(self, store)

    def load_own_variables(self, store):
        """Checks that the weights that Keras is about to load are whole and of such a model."""
        weights.check_store(self, store)

    def get_config(self):
        """The description of the model, for `keras.saving`: see `tfp_flows.saving.describe`.

        Of a subclass with a constructor of its own, that constructor's arguments.
        """
        if self._own_arguments is not None:
            return {"flow": describe(arguments={**self._own_arguments, **self._own_name()})}
        parts = {"distribution": self.distribution, "dequantization": self.dequantization}
        if self._embedding is not None:
            parts["context_network"] = self._embedding.layer
            parts["raw_contexts"] = _plain(self._embedding.specs)
        if self._objective is not None:
            parts["objective"] = self._describable_objective()
        return {
            "name": self.name,
            "bits_per_dim": self.reports_bits_per_dim,
            "flow": describe(**parts),
        }

    def _describable_objective(self):
        """The objective, or what a file can keep of it."""
        try:
            describe(objective=self._objective)
        except ValueError as error:
            kept = self._objective.without_target(str(error).partition(": ")[2].partition(". ")[0])
            if kept is None:
                raise
            return kept
        return self._objective

    def _own_name(self):
        return {"name": self.name} if "name" in self._own_arguments else {}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The model of `get_config`, with fresh weights in its Keras layers."""
        config = dict(config)
        if custom_objects:  # An empty scope would hide those of the scope around it.
            with keras.saving.custom_object_scope(custom_objects):
                return cls.from_config(config)
        parts = rebuild(config.pop("flow", None))
        if isinstance(parts.get("arguments"), dict):
            return cls(**parts["arguments"])
        if not isinstance(parts.get("distribution"), tfd.Distribution):
            raise ValueError("FlowModel: the file is damaged: it describes no distribution.")
        if parts.get("objective") is not None:
            if not isinstance(parts["objective"], Objective):
                raise ValueError("FlowModel: the file is damaged: its objective is none.")
            config["objective"] = parts["objective"]
        network = parts.get("context_network")
        if network is not None:
            config["context_network"] = network
        model = cls(parts["distribution"], dequantization=parts.get("dequantization"), **config)
        if network is not None and parts.get("raw_contexts") is not None:
            model._embedding.build(_specs(parts["raw_contexts"]))
        return model

    def get_compile_config(self):
        """The arguments of `compile`, for `keras.saving`."""
        config = super().get_compile_config()
        if "jit_compile" in config:
            config = {**config, "jit_compile": self._asked_for_xla}  # "auto" of whoever loads it.
            if self._micro_batch_size is not None:
                config["micro_batch_size"] = self._micro_batch_size
        return {name: value for name, value in config.items() if name in _COMPILED}

    def compile_from_config(self, config):
        """Compiles as `get_compile_config` says, with the optimizer's variables made.

        Raises:
          ValueError: if it says anything else.
        """
        if not _is_compile_config(config):
            raise ValueError(
                "FlowModel: the file's compile_config is damaged: expected "
                f"{', '.join(_COMPILED)}, got {shortened(repr(config), 200)}. Load it by "
                "tfp_flows.load(path, compile=False)."
            )
        check_optimizer_config(config["optimizer"], "FlowModel: the file's optimizer")
        self.build()
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._build_optimizer()

    def export(self, filepath, format="tf_saved_model", verbose=None, **kwargs):
        """Writes a SavedModel that TensorFlow alone can load and call.

        Its signatures, each with a free batch size and every input by name, as in
        `loaded.signatures["log_prob"](x=x)["log_prob"]`; `loaded.log_prob(x)["log_prob"]` is the
        same:

            log_prob(x)                      -> log_prob [batch], nats
            bits_per_dim(x)                  -> bits_per_dim [batch], where the model reports it
            forward(z)                       -> x
            inverse(x)                       -> z
            sample(n, seed, temperature)     -> samples [n, *event_shape]
            sample_and_log_prob(n, seed)     -> samples, and log_prob [n]

        Those of a direction that a bijector refuses by a `NotImplementedError` are left out.

        A conditional model's take a `context` as well, `[batch or 1, context_size]`. `n` is an
        int32 scalar, `seed` a pair of int32, `temperature` defaults to 1 where the loader knows
        defaults (Python's does for `loaded.sample(n, seed)`, not for its signature). The same
        seed gives the same samples. A model that dequantizes takes int32 in `log_prob`, and has
        `log_prob_dequantized` for floating data; one of integers takes and gives int32.
        `assets.extra/manifest.json` describes it all.

        What `tf.saved_model.load` returns has to be kept while its functions are used:
        `tf.saved_model.load(path).log_prob(x)` in one expression fails. A row with NaN scores NaN,
        and does not raise as the model does: a served batch holds the rows of several requests,
        which one bad row must not take down.

        The directory is written under another name beside it and renamed when it is complete.

        Args:
          filepath: the new directory, on a local file system.
          format: `"tf_saved_model"`, the only one.
          verbose: ignored.
          **kwargs: none; the signatures follow from the distribution.

        Raises:
          ValueError: if another format is asked for, or an ActNorm was never initialised.
          TypeError: for any other keyword.
          FileExistsError: if there is something at `filepath`.
          OSError: if it cannot be written; nothing is left at `filepath` then.
        """
        del verbose
        if format != "tf_saved_model":
            raise ValueError(
                f"FlowModel.export: format must be 'tf_saved_model', got {format!r}. Convert the "
                "SavedModel with the other format's own tool."
            )
        if kwargs:
            raise TypeError(
                f"FlowModel.export: unexpected keyword {', '.join(sorted(kwargs))}. The "
                "signatures follow from the distribution."
            )
        export(self, filepath)


def _is_compile_config(config):
    if not isinstance(config, dict) or not {"optimizer"} <= set(config) <= set(_COMPILED):
        return False
    steps = config.get("steps_per_execution", 1)
    rows = config.get("micro_batch_size")
    return (
        isinstance(config.get("run_eagerly", False), bool)
        and config.get("jit_compile", False) in (True, False, "auto", None)
        and type(steps) is int
        and steps > 0
        and (rows is None or (type(rows) is int and rows > 0))
    )


def _plain(specs):
    """The shapes and dtypes of raw contexts as a file keeps them."""
    if isinstance(specs, dict):
        return {name: _plain(spec) for name, spec in specs.items()}
    return None if specs is None else (tuple(specs.shape[1:].as_list()), specs.dtype.name)


def _specs(plain):
    if isinstance(plain, dict):
        return {name: _specs(spec) for name, spec in plain.items()}
    return tf.TensorSpec([None, *plain[0]], plain[1])
