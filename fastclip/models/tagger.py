"""An image tower that says which tags a picture has."""

from collections.abc import Sequence
from typing import Literal, Protocol, Unpack

from torch import Tensor
from torch.nn import functional as F

from fastclip.models.image_model import ImageModel, Sizes
from fastclip.models.linear_head import LinearHead
from fastclip.models.tower import ImageTower
from fastclip.models.vocabulary_head import fp32_linear

Activation = Literal["sigmoid", "softmax"]


class Tags(Protocol):
    """The tags that a tagger predicts. It counts them; others ask which of them a record has."""

    @property
    def names(self) -> Sequence[str]:
        """Of the tags, by number."""
        ...


class Tagger(ImageModel):
    """Pictures to the mean of their grid, and a linear layer of one output a tag on it.

    ``visual`` has neither pooling nor projection, so :meth:`encode_image` gives the features
    [b, grid_width] that tags are read from. ``activation`` says what makes probabilities of the
    logits: a sigmoid each, or one softmax of all.
    """

    def __init__(
        self,
        visual: ImageTower,
        tags: Tags,
        activation: Activation,
        **sizes: Unpack[Sizes],
    ):
        super().__init__(visual, **sizes)
        self.tags = tags
        self.activation = activation
        self.head = LinearHead(visual.grid_width, len(tags.names))

    def forward(self, image: Tensor) -> Tensor:
        """Pictures [b, 3, s, s], uint8 or standardized floats, to features [b, grid_width]."""
        return self.encode_image(image, normalize=False)

    def tag_logits(self, image: Tensor) -> Tensor:
        """Logits [b, tags] (fp32) of pictures [b, 3, s, s]."""
        return self.head(self(image), fp32_linear)

    def tag_log_probs(self, image: Tensor) -> Tensor:
        """Logarithms of the tags' probabilities [b, tags] (fp32).

        Unlike a softmax's logits they can be compared over pictures.
        """
        logits = self.tag_logits(image)
        return F.logsigmoid(logits) if self.activation == "sigmoid" else logits.log_softmax(-1)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of blocks only, and recompute their activations in the backward pass."""
        self.visual.set_grad_checkpointing(enable)
