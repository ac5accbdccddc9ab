"""Each operation's arguments are the fields of its pack, and are written nowhere else."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fastclip.ops.distill import packs as distill
from fastclip.ops.infonce import packs as infonce
from fastclip.ops.linear.cross_entropy import packs as cross_entropy
from fastclip.ops.linear.multi_target import packs as multi_target
from fastclip.ops.linear.ngram import packs as ngram
from fastclip.ops.linear.sigmoid import packs as linear_sigmoid
from fastclip.ops.packs import no_gradients, packed_op
from fastclip.ops.sigmoid import packs as sigmoid

PACKS = {
    "infonce_forward": infonce.InfonceForward,
    "infonce_backward": infonce.InfonceBackward,
    "infonce_ids_forward": infonce.InfonceIdsForward,
    "infonce_ids_backward": infonce.InfonceIdsBackward,
    "clip_loss": infonce.ClipLossCall,
    "clip_loss_ids": infonce.ClipLossIdsCall,
    "sigmoid_forward": sigmoid.SigmoidForward,
    "siglip_loss": sigmoid.SiglipLossCall,
    "siglip_loss_ids": sigmoid.SiglipLossIdsCall,
    "distill_forward": distill.DistillForward,
    "distill_backward": distill.DistillBackward,
    "distill_clip_loss": distill.DistillClipLossCall,
    "linear_cross_entropy_rows": cross_entropy.CrossEntropyRows,
    "linear_cross_entropy": cross_entropy.CrossEntropyCall,
    "multi_target_cross_entropy_rows": multi_target.MultiTargetRows,
    "multi_target_cross_entropy": multi_target.MultiTargetCall,
    "ngram_cross_entropy_rows": ngram.NgramRows,
    "ngram_cross_entropy": ngram.NgramCall,
    "linear_sigmoid_cross_entropy_rows": linear_sigmoid.LinearSigmoidRows,
    "linear_sigmoid_cross_entropy": linear_sigmoid.LinearSigmoidCall,
}


@pytest.mark.parametrize("name", PACKS)
def test_the_schema_is_the_pack(name):
    arguments = getattr(torch.ops.fastclip, name).default._schema.arguments
    assert tuple(argument.name for argument in arguments) == PACKS[name]._fields
    optional = {a.name for a in arguments if a.has_default_value()}
    assert optional == set(PACKS[name]._field_defaults)


class Call(NamedTuple):
    x: Tensor
    factor: float
    bias: Tensor | None = None


def test_an_op_of_a_pack():
    @packed_op("fastclip_test::scaled", Call, results=1)
    def scaled(*fields):
        call = Call(*fields)
        return call.x * call.factor if call.bias is None else call.x * call.factor + call.bias

    schema = str(torch.ops.fastclip_test.scaled.default._schema)
    assert schema == "fastclip_test::scaled(Tensor x, float factor, Tensor? bias=None) -> Tensor"
    x = torch.ones(3)
    assert torch.equal(scaled(x, 2.0), 2 * x)
    assert torch.equal(scaled(*Call(x, 2.0, x)), 3 * x)
    assert torch.equal(torch.ops.fastclip_test.scaled(x, factor=2.0, bias=x), 3 * x)
    assert tuple(no_gradients(Call, besides=1)) == (None, None)
