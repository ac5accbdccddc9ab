"""What open_clip's flags (3.3.0) are called here, for those that are not ours by the same name."""

from collections.abc import Sequence

from fastclip.errors import UserError

_NOT_BUILT = "is not built yet"
_LAUNCHER = "is left to the deepspeed launcher (--hostfile, --master_addr, --master_port)"
_LAUNCHED = "has no use here: the deepspeed launcher gives every process its device"
_ALWAYS = "needs no flag here: the loss always has the gradient of the whole global batch"

NOT_OURS = {
    "--accum-freq": "counts batches in open_clip; here --train-micro-batch-size-per-gpu says how "
    "many records of --train-batch-size a forward pass takes",
    "--aug-cfg": "is written here as --augment.scale, --augment.ratio, --augment.gray and so on",
    "--batch-size": "is per device in open_clip and is not accepted here: set --train-batch-size "
    "(global) and, if needed, --train-micro-batch-size-per-gpu",
    "--cache-dir": f"{_NOT_BUILT}: set the variable HF_HOME to move the folder of downloads",
    "--copy-codebase": f"{_NOT_BUILT}: a run's versions.json names the git revision instead",
    "--ddp-static-graph": "belongs to torch's DDP: a run here is DeepSpeed's, see --zero-stage",
    "--debug": f"{_NOT_BUILT}: --log-every-n-steps 1 tells most",
    "--delete-previous-checkpoint": "is written here as --keep-checkpoints 1",
    "--device": "has no use here: a run takes the accelerator that DeepSpeed finds, and the "
    "variable DS_ACCELERATOR=cpu overrules it",
    "--dist-backend": _LAUNCHER,
    "--dist-url": _LAUNCHER,
    "--distill-model": "names a teacher to distill from: see --objective distill --help",
    "--distill-pretrained": "names a teacher's weights: see --objective distill --help",
    "--force-context-length": "is written here as --context-length",
    "--force-custom-text": "has no use here: both towers are always modules of their own",
    "--force-image-size": "is written here as --image-size, with one side of a square",
    "--force-patch-dropout": _NOT_BUILT,
    "--force-quick-gelu": "is part of the name here: --model <name>-quickgelu",
    "--gather-with-grad": _ALWAYS,
    "--horovod": "is not built: a run here is DeepSpeed's, see --zero-stage",
    "--image-interpolation": _NOT_BUILT,
    "--image-mean": _NOT_BUILT,
    "--image-resize-mode": _NOT_BUILT,
    "--image-std": _NOT_BUILT,
    "--imagenet-v2": "is a split of its own in open_clip: give it as --imagenet-val",
    "--local-loss": _ALWAYS,
    "--log-local": f"{_NOT_BUILT}: the first process alone keeps the log, in --logs",
    "--loss-dist-impl": "has no use here: the loss exchanges features in one exact way",
    "--no-set-device-rank": _LAUNCHED,
    "--pretrained": _NOT_BUILT,
    "--pretrained-image": _NOT_BUILT,
    "--remote-sync": f"{_NOT_BUILT}: copy --logs with a tool of your own",
    "--remote-sync-frequency": _NOT_BUILT,
    "--remote-sync-protocol": _NOT_BUILT,
    "--save-most-recent": "needs no flag here: --resume auto takes the newest complete checkpoint "
    "of --keep-checkpoints",
    "--torchscript": f"{_NOT_BUILT}: --torchcompile compiles the network",
    "--trace": f"{_NOT_BUILT}, and serves evaluation alone in open_clip",
    "--use-bn-sync": _NOT_BUILT,
    "--use-bnb-linear": _NOT_BUILT,
    "--val-num-samples": "needs no flag here: the number is read from --val-data",
}
"""After the flag, the rest of the sentence that refuses it."""

_SAME_VALUE = {
    ("--precision", "amp_bfloat16"): "amp_bf16",
    ("--resume", "latest"): "auto",
}
_BAD_VALUE = {
    **dict.fromkeys(
        (("--logs", "None"), ("--logs", "none")),
        "keeps nothing in open_clip, but a run here always has a folder",
    ),
    ("--precision", "amp"): "is fp16 autocast in open_clip, which is not built yet: take amp_bf16",
    (
        "--precision",
        "pure_bf16",
    ): "keeps no fp32 weights in open_clip, which is not built yet: take bf16, which keeps them",
    (
        "--precision",
        "pure_fp16",
    ): "keeps no fp32 weights in open_clip, which is not built yet: take fp16, which keeps them",
}


def translate_value(flag: str, words: Sequence[str]) -> list[str]:
    """Our words for the value of one of our flags; refuses one that means nothing here."""
    key = (flag, " ".join(words))
    if key in _BAD_VALUE:
        raise UserError(f"{' '.join(key)} {_BAD_VALUE[key]}")
    return [_SAME_VALUE[key]] if key in _SAME_VALUE else list(words)
