"""Where neurons are divided by a pool the pool arm wins; where they are not, no arm is better. The drive is known."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("pooled_world.py")


def comparison(alpha: float) -> dict[str, Any]:
    """What is found with a pool of strength ``alpha``: pool against static, 3 animals, 3 paired seeds."""
    done = subprocess.run([sys.executable, PROGRAM, str(alpha)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_pool_arm_wins_where_a_pool_divides():
    found = comparison(4.0)
    assert found["verdict"] == "supported", found["sentence"]
    assert found["difference"] > 0.02


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_no_arm_is_better_where_no_pool_divides():
    found = comparison(0.0)
    assert found["verdict"] in ("not_supported", "equivalent"), found["sentence"]
    assert abs(found["difference"]) < 0.01
