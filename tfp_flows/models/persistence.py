"""What `FlowModel` writes and reads: files, weights, exports."""

import keras
import tensorflow_probability as tfp

from tfp_flows._files import written_whole
from tfp_flows.models.layout import (
    check_stored_layout,
    check_weights_file,
    holds_optimizer,
    store_layout,
)
from tfp_flows.saving import describe, rebuild

tfd = tfp.distributions

# The arguments of `compile` that a file keeps.
_COMPILED = ("optimizer", "run_eagerly", "steps_per_execution", "jit_compile")


class Persistence:
    """The part of `FlowModel` that saves, loads and exports."""

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """`keras.Model.save`: the distribution, its weights and the optimizer's state in one file.

        Stock TFP, this package, Keras layers and registered classes of your own are described
        (see `tfp_flows.saving`); `keras.models.load_model` gives back the same distribution, and
        training goes on as if there had been no save. To load a file runs no code from it.

        Args:
          filepath: path that ends in `.keras`, on a local file system. The file appears there
            when it is complete.
          overwrite: whether a file that is there is replaced.
          zipped, **kwargs: as `keras.Model.save`.

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
        self.build()
        with written_whole(
            filepath, owner="FlowModel.save", overwrite=overwrite, suffix=".keras"
        ) as partial:
            super().save(partial, zipped=zipped, **kwargs)

    def save_weights(self, filepath, overwrite=True, **kwargs):
        """`keras.Model.save_weights`, also before the model was ever called.

        The file appears under its name when it is complete.
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
            suffix=".weights.h5",
            room=sum(2048 + v.value.shape.num_elements() * v.value.dtype.size for v in held),
        ) as partial:
            super().save_weights(partial, **kwargs)

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """`keras.Model.load_weights`, also before the model was ever called.

        Raises:
          ValueError: if the file is of another model; the message names the first part that
            differs, and no weight is changed.
        """
        self.build()
        if not skip_mismatch:
            check_weights_file(filepath, self)
        if self.compiled and holds_optimizer(filepath):
            # Keras leaves out the state of an optimizer that has no variables yet.
            self._build_optimizer()
        super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        # What tf.train.Checkpoint saves. It does not see layers that are kept in a list (Keras
        # 3.15), and would save none of the weights, without a word.
        children = super()._trackable_children(save_type, **kwargs)
        if save_type == "checkpoint":
            children["distribution"] = self._distribution
        return children

    def save_own_variables(self, store):
        """Keeps, for `load_own_variables`, what each weight of the model is."""
        super().save_own_variables(store)
        store_layout(self, store)

    def load_own_variables(self, store):
        """Checks that the weights that Keras is about to load are those of such a model."""
        check_stored_layout(self, store)

    def get_config(self):
        """The description of the model, for `keras.saving`: see `tfp_flows.saving.describe`."""
        return {
            "name": self.name,
            "bits_per_dim": self.reports_bits_per_dim,
            "flow": describe(
                distribution=self.distribution,
                dequantization=self.dequantization,
            ),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The model of `get_config`, with fresh weights in its Keras layers."""
        config = dict(config)
        if custom_objects:  # An empty scope would hide those of the scope around it.
            with keras.saving.custom_object_scope(custom_objects):
                return cls.from_config(config)
        parts = rebuild(config.pop("flow", None))
        if not isinstance(parts.get("distribution"), tfd.Distribution):
            raise ValueError("FlowModel: the file is damaged: it describes no distribution.")
        return cls(parts["distribution"], dequantization=parts.get("dequantization"), **config)

    def get_compile_config(self):
        """The arguments of `compile`, for `keras.saving`."""
        config = super().get_compile_config()
        return {name: value for name, value in config.items() if name in _COMPILED}

    def compile_from_config(self, config):
        """Compiles as `get_compile_config` says, with the optimizer's variables made."""
        config = {name: config[name] for name in _COMPILED if name in config}
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

        A conditional model's take a `context` as well, `[batch or 1, context_size]`. `n` is an
        int32 scalar, `seed` a pair of int32, `temperature` defaults to 1 where the loader knows
        defaults (Python's does for `loaded.sample(n, seed)`, not for its signature). The same
        seed gives the same samples. A model that dequantizes takes int32 in `log_prob`, and has
        `log_prob_dequantized` for floating data. `assets.extra/manifest.json` describes it all.

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
        from tfp_flows.export import export

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
