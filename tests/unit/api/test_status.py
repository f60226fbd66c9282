"""Every error of ours has a status of gRPC, and back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import ocirt.errors
import ocirt_csi.errors
import ocirt_images.errors
from ocirt_api import status

# Asked of another process: grpc and the forks of other tests do not go together.
ASK = "import grpc, json; print(json.dumps({code.name: code.value[0] for code in grpc.StatusCode}))"
OURS = ocirt.errors.CODES | ocirt_images.errors.CODES | ocirt_csi.errors.CODES
NUMBERS = {name: value for name, value in vars(status).items() if name.isupper() and isinstance(value, int)}


def test_every_code_has_a_row_and_no_row_is_left_over() -> None:
    assert set(status.STATUS) == OURS


def test_the_numbers_are_those_of_grpc() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == NUMBERS


def test_every_status_means_a_code_of_ours() -> None:
    assert set(status.CODE) == set(NUMBERS.values()) - {status.OK}
    assert set(status.CODE.values()) <= OURS


@pytest.mark.parametrize("code", sorted(OURS - {"in-use", "usage"}))
def test_a_code_survives_the_way_there_and_back(code: str) -> None:
    assert status.code(status.of(code)) == code


def test_words_and_numbers_that_nobody_knows() -> None:
    assert status.of("no such word") == status.UNKNOWN
    assert status.code(99) == "internal"
