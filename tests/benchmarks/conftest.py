import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def made_up():
    """A record with an entry for everything that is run, its figures made up to meet all bars."""
    import made_up_record

    return made_up_record.made_up_record()
