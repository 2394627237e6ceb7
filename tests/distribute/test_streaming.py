"""Data that are larger than memory pass through `fit`."""

import json

from distribute.processes import run


def test_images_stream():
    """300 MB of images under two replicas, in less than a third of that memory more."""
    (printed,) = run("stream.py")
    found = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
    assert found["megabytes_read"] > 300
    assert found["megabytes_grown"] < 100
