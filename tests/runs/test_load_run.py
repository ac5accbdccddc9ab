"""A run's folder opened again: every objective's own model, and nothing heavy imported for it."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import ONE, SIDE, VIRTEX, micro_batches, tokenizer
from transformers import CLIPModel

from fastclip.errors import UserError
from fastclip.models.hf import to_hf
from fastclip.objectives import find_objective
from fastclip.objectives.base import Parts
from fastclip.runs import load_run
from fastclip.runs.learned import save_learned
from fastclip.runs.teacher import open_teacher
from fastclip.training import run_folder, weights
from fastclip.training.config import train_config

DECODER = {"decoder_width": 32, "decoder_layers": 1, "decoder_heads": 2}
FLAGS = {
    **dict.fromkeys((*VIRTEX, "coca"), DECODER),
    "distill": {"feature_weight": 1.0},
}
NAMES = ("clip", "siglip", *VIRTEX, "coca", "distill")


def finished(folder: Path, name: str, learned=None, **flags):
    """A run's folder as training leaves it, and the objective that it holds."""
    flags = {"model": "tiny-convnet", "image_size": SIDE, **FLAGS.get(name, {}), **flags}
    cfg = train_config(objective=name, **flags)
    torch.manual_seed(1)
    parts = Parts(cfg.model, tokenizer(), ONE, 1 << 20, learned=learned or {})
    objective = find_objective(name)(cfg.objective, parts)
    if objective.scalars is not None:
        objective.scalars.logit_scale.data.fill_(3.0)
    run_folder.write(folder, cfg, {})
    save_learned(learned or {}, folder)
    tokenizer().save(folder / "tokenizer.json")
    weights.save(objective, folder / "model.safetensors", ONE)
    return objective


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_gives_its_own_model(tmp_path, name):
    objective = finished(tmp_path / "run", name)
    trained = load_run(tmp_path / "run")
    assert trained.objective == name
    assert type(trained.model) is type(objective.model)
    assert not trained.model.training
    for key, tensor in objective.model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[key], tensor), key
    ids = trained.tokenizer(["red star"])
    assert torch.equal(ids, tokenizer()(["red star"]))
    [micro] = micro_batches(1)
    if name in VIRTEX:
        model, _ = trained
        grid = model.encode_grid(micro["image"])
        if name == "masked_lm":
            words = [model.maskable(text)[0] for text in micro["said"]]
            assert model.foresee_masked(grid, micro["said"], words).shape == (len(grid),)
        else:
            assert model.next_token_logits(grid, micro["text"][:, :2]).shape[0] == len(grid)
        with pytest.raises(AttributeError, match=f"a run of objective {name} has no 'logit_sc"):
            _ = trained.logit_scale
        return
    model, _, scale = trained
    assert scale == trained.logit_scale == trained[2] == pytest.approx(20.0855, rel=1e-4)
    assert trained.log_logit_scale == pytest.approx(3.0)
    assert hasattr(trained, "logit_bias") == (name == "siglip")
    assert model.encode_image(micro["image"]).shape == (16, 128)


@pytest.mark.parametrize(
    ("name", "flags", "learned"),
    [
        ("tp_postag", {}, {"tags": ["red", "star"]}),
        ("tp_label", {}, {"tags": ["cat", "dog", "cow"]}),
        ("multilabel_classification", {"tags_from": "tags"}, {"tags": ["sea", "a boat"]}),
        ("tp_cluster", {"text_encoder": "gone"}, {"tags": ["a b", "c"], "centroids": True}),
        ("token_classification", {}, {}),
    ],
)
def test_taggers_know_their_tags(tmp_path, name, flags, learned):
    if "centroids" in learned:
        learned = {**learned, "centroids": torch.randn(2, 16), "fingerprint": "0123"}
    objective = finished(tmp_path / "run", name, learned, **flags)
    trained = load_run(tmp_path / "run")
    names = learned.get("tags") or [tokenizer().decode([n]) for n in range(tokenizer().vocab_size)]
    assert trained.tags == names
    [micro] = micro_batches(1)
    logits = trained.model.tag_logits(micro["image"])
    assert torch.equal(logits, objective.model.eval().tag_logits(micro["image"]))
    assert logits.shape == (16, len(names))
    if "centroids" in learned:  # kept, though their encoder is not opened
        assert torch.equal(trained.model.tags.centroids, learned["centroids"])
    again = pickle.loads(pickle.dumps(trained))
    assert again.tags == list(again.model.tags.names) == names


def test_folders_of_runs_before_objectives_had_names(tmp_path):
    for name in ("clip", "siglip"):
        finished(tmp_path / name, name)
        path = tmp_path / name / "config.yaml"
        lines = path.read_text().splitlines()
        path.write_text("\n".join(line for line in lines if not line.startswith("objective")))
        assert load_run(tmp_path / name).objective == name


def test_the_old_import_warns_and_works(tmp_path):
    finished(tmp_path / "run", "clip")
    from fastclip.training.trained import load_run as old

    with pytest.warns(DeprecationWarning, match="from fastclip.runs import load_run"):
        assert old(tmp_path / "run").objective == "clip"


def test_loading_imports_nothing_that_only_training_needs(tmp_path):
    finished(tmp_path / "run", "captioning")
    code = (
        "import sys; from fastclip.runs import load_run; load_run(sys.argv[1]); "
        "print(*(m for m in ('matplotlib', 'webdataset', 'deepspeed', 'tensorboard', 'tyro') "
        "if m in sys.modules))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_faults_of_a_folder_are_told(tmp_path):
    with pytest.raises(UserError, match="^the run is None, expected the path of its folder"):
        load_run(None)
    with pytest.raises(UserError, match=rf"{Path.home()}/no-such-run has no config.yaml"):
        load_run("~/no-such-run")
    with pytest.raises(UserError, match=r"has no config\.yaml: expected the folder of a finished"):
        load_run(tmp_path)
    finished(tmp_path / "run", "clip")
    good = (tmp_path / "run" / "config.yaml").read_text()
    for text, told in (
        ("- 1", "holds list, expected a mapping"),
        ("a: [", "cannot be read"),
        (good.replace("objective: clip", "objective: clop"), "--objective is 'clop', expected one"),
        (
            good.replace("objective: clip", "objective: [clip]"),
            r"--objective is \"\['clip'\]\", exp",
        ),
        (good.replace("model: tiny-convnet", "model: 3"), "describes no model that can be built"),
        (good.replace("image_size: 16", "image_size: x"), "describes no model that can be built"),
        (good.replace("tiny-convnet", "tiny-vit"), "do not fit this model"),
    ):
        (tmp_path / "run" / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=told) as refused:
            load_run(tmp_path / "run")
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 600
    (tmp_path / "run" / "tokenizer.json").write_text(
        '{"kind": "bpe", "merges": [["zz", "qq"]], "context_length": 8, "pad": "zero"}'
    )
    with pytest.raises(UserError, match=r"tokenizer\.json is not a saved tokenizer"):
        load_run(tmp_path / "run")


def test_a_run_can_be_copied_and_sent_to_another_process(tmp_path):
    finished(tmp_path / "run", "siglip")
    trained = load_run(tmp_path / "run")
    for again in (copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))):
        assert again.objective == "siglip"
        assert again.model is again[0] is not trained.model
        assert again[2:] == (trained.logit_scale,)
        assert again.logit_bias == trained.logit_bias
    assert copy.copy(trained).model is trained.model


def test_a_whole_run_goes_to_transformers_with_its_scale(tmp_path):
    finished(tmp_path / "run", "clip", model="tiny-vit", image_size=32)
    trained = load_run(tmp_path / "run")
    to_hf(trained).save_pretrained(tmp_path / "hf")
    hf = CLIPModel.from_pretrained(tmp_path / "hf")
    assert float(hf.logit_scale.detach()) == pytest.approx(3.0)
    with pytest.raises(UserError, match="expected a run as load_run returns it"):
        to_hf(trained.model)
    finished(tmp_path / "siglip", "siglip", model="tiny-vit", image_size=32)
    with pytest.raises(UserError, match="no place for SigLIP's logit bias"):
        to_hf(load_run(tmp_path / "siglip"))


def test_teachers_are_runs_and_folders_of_transformers(tmp_path):
    finished(tmp_path / "run", "clip", model="tiny-vit", image_size=32)
    to_hf(load_run(tmp_path / "run")).save_pretrained(tmp_path / "hf")
    teacher = open_teacher(str(tmp_path / "run"))
    assert (teacher.width, teacher.scale) == (128, pytest.approx(20.0855, rel=1e-4))
    [micro] = micro_batches(1)
    image, text = teacher.embed(micro["image"], micro["said"])
    assert image.shape == text.shape == (16, 128)
    large = micro["image"].repeat_interleave(2, -1).repeat_interleave(2, -2)
    again, _ = teacher.embed(large, micro["said"])
    assert torch.nn.functional.cosine_similarity(image, again).min() > 0.8
    finished(tmp_path / "other", "captioning")
    for folder, told in (
        ("nowhere", "has neither config.yaml .* nor config.json"),
        ("other", "is a run of objective captioning, expected one that leaves"),
        ("hf", "has neither tokenizer.json nor vocab.json"),
    ):
        with pytest.raises(UserError, match=told):
            open_teacher(str(tmp_path / folder))
    ours = tokenizer()
    ends = {"<|startoftext|>": ours.sot_id, "<|endoftext|>": ours.eot_id}
    (tmp_path / "hf" / "vocab.json").write_text(json.dumps({**ours.vocab, **ends}))
    merges = "".join(f"{first} {second}\n" for first, second in ours.merges)
    (tmp_path / "hf" / "merges.txt").write_text("#version: 0.2\n" + merges)
    same = open_teacher(str(tmp_path / "hf"))
    for one, other in zip(same.embed(micro["image"], micro["said"]), (image, text), strict=True):
        torch.testing.assert_close(one, other)
    assert same.scale == pytest.approx(teacher.scale)
    assert same.fingerprint == teacher.fingerprint
