"""A loader of batches that are made from their numbers, for tests of the trainer."""

from fastclip.data.loaders.base import Loader


class StepLoader(Loader):
    """Four steps an epoch, known beforehand; a subclass says what they are."""

    steps_per_epoch = 4

    def begin(self, epoch: int) -> list[str]:
        return []

    def steps_before(self, epoch: int) -> int:
        return epoch * self.steps_per_epoch

    def state(self) -> dict:
        return {}

    def load_state(self, state: dict) -> None:
        assert state == {}

    def identity(self) -> dict:
        return {"steps an epoch (--train-data and --train-batch-size)": self.steps_per_epoch}

    def close(self) -> None:
        pass
