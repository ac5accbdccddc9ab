import open_clip
import torch
from timm.layers import AttentionPool2d
from timm.models.byobnet import checkpoint_filter_fn
from torch import nn

from fastclip.models import create_model
from fastclip.models.timm_tower import TimmTower


def test_modified_resnet_is_open_clips():
    torch.manual_seed(0)
    theirs = open_clip.CLIP(
        embed_dim=1024,
        vision_cfg={"layers": [3, 4, 6, 3], "width": 64, "image_size": 64, "patch_size": None},
        text_cfg={"width": 8, "heads": 1, "layers": 1},
    ).visual
    norms = [m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1)
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    ours = TimmTower("resnet50_clip", 1024, 64, {}).eval()
    state = {f"visual.{key}": value for key, value in theirs.state_dict().items()}
    ours.trunk.load_state_dict(checkpoint_filter_fn(state, ours.trunk))
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs.eval()(image), rtol=1e-4, atol=1e-5)


def test_clip_resnet_has_batch_norm_and_attention_pooling():
    with torch.device("meta"):
        tower = create_model("RN50x4").visual
    modules = list(tower.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in modules)
    (pool,) = (m for m in modules if isinstance(m, AttentionPool2d))
    assert (pool.num_heads, pool.feat_size, pool.out_features) == (40, (9, 9), 640)
    assert isinstance(tower.projection, nn.Identity)


def test_attention_pool_starts_as_clips_and_blocks_as_identities():
    torch.manual_seed(0)
    tower = TimmTower("resnet50_clip", 256, 64, {})
    pool = tower.trunk.head
    for weight in (pool.q.weight, pool.k.weight, pool.v.weight, pool.proj.weight):
        assert abs(weight.std().item() * 2048**0.5 - 1) < 0.05
    for block in tower.trunk.stages[1]:
        assert not block.conv3_1x1.bn.weight.any()


def test_statistics_follow_a_cast_of_the_parameters_alone():
    tower = TimmTower("resnet10t", 16, 32, {})
    for parameter in tower.parameters():
        parameter.data = parameter.data.bfloat16()
    features = tower(torch.randn(2, 3, 32, 32, dtype=torch.bfloat16))
    assert features.dtype == torch.bfloat16
    assert tower.trunk.bn1.num_batches_tracked == 1
