"""``fastclip/train.py`` with one more objective: labels made before every epoch, and a sampler.

Run as a script by the tests that kill it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import small

from fastclip import objectives, train

sys.modules["fastclip.objectives.small"] = small
objectives.FILES["labels-and-sampler"] = "small:LabelsAndSampler"

if __name__ == "__main__":
    sys.exit(train.main())
