"""The trainer's speed and memory, beside open_clip's loop."""
