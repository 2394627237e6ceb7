"""Objects that are what their config says."""


class Configured:
    """Equality, hash, `repr` and copies of an object by what `get_config` returns."""

    def get_config(self):
        """Returns the constructor's arguments, numbers and strings alone."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Builds the object from what `get_config` returned."""
        return cls(**config)

    def __eq__(self, other):
        return type(other) is type(self) and other.get_config() == self.get_config()

    def __hash__(self):
        return hash((type(self), tuple(sorted(self.get_config().items()))))

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"
