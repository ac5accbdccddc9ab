"""What the tags of a model are, and which of them a record has: one kind a file."""

from fastclip.data.tags.classes import ClassTags
from fastclip.data.tags.source import TagSource
from fastclip.data.tags.tokens import TokenTags
from fastclip.data.tags.words import WordTags

__all__ = ["ClassTags", "TagSource", "TokenTags", "WordTags"]
