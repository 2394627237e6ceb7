"""What the command lines of these programs share."""

import math
import sys


class InputError(Exception):
    """Something that the user gave cannot be used; the message says what to do."""


def require_positive(parser, args, names):
    """Ends the program, with what is wrong, unless the options of these names are positive.

    Options that were left out, `None`, pass.
    """
    for name in names:
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            parser.error(f"--{name.replace('_', '-')} must be positive, got {value}")


def run_or_say(run, args):
    """Runs the program, or ends it with one line that says what is wrong."""
    try:
        run(args)
    except (InputError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
