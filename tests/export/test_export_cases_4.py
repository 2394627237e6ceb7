"""A quarter of the harness's cases, exported."""

import pytest
from export_shards import check_export, shard


@pytest.mark.parametrize("name", shard(3))
def test_the_export_is_the_model(name, tmp_path):
    check_export(name, str(tmp_path / "model"))
