"""A number too large for a float: JSON has it, Python reads it as infinity, and no text may be made of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt import jsonlite
from ocirt.errors import Error
from ocirt.spec.load import read_spec


@pytest.mark.parametrize("text", ['{"ociVersion": 1e999}', '{"ociVersion": "1.0.0", "annotations": {"a": -1e999}}', "[1e400]"])
def test_a_config_json_with_an_infinite_number_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Error) as caught:
        read_spec(str(tmp_path))
    assert caught.value.code == "invalid"


def test_writing_one_does_not_fail_as_a_bug() -> None:
    assert jsonlite.dumps({"a": [float("inf")]})
