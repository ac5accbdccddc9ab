"""Sources that hold what a test lists."""

from fastclip.data.sources.base import ForwardSource, Part, Size, Source


class ListedPart(Part):
    """Given records, then given problems; counts how often it was closed."""

    def __init__(self, records, problems):
        self.records, self.problems, self.closed = records, problems, 0

    def __len__(self):
        return len(self.records)

    def read(self, number):
        return self.records[number]

    def nbytes(self):
        return 7

    def close(self):
        self.closed += 1


class ListedRecords(Source):
    """Parts of given records."""

    def __init__(self, name, parts, holds=None, problems=(), class_names=None):
        self.name, self.parts, self.problems = name, parts, problems
        self.holds, self.class_names = holds, class_names
        self.opened = []

    @property
    def num_parts(self):
        return len(self.parts)

    def part_name(self, part):
        return f"{self.name}, part {part}"

    def size(self, part):
        return Size(len(self.parts[part]))

    def open(self, part):
        self.opened.append(ListedPart(self.parts[part], self.problems if part == 0 else ()))
        return self.opened[-1]

    def identity(self):
        return f"{self.name} {self.parts}"


class ListedStream(ForwardSource):
    """Streams of given records; ``ended`` lists those that were closed or ran out."""

    def __init__(self, name, parts, sizes=None, holds=None):
        self.name, self.parts, self.holds = name, parts, holds
        self.sizes = sizes or [None] * len(parts)
        self.ended = []

    @property
    def num_parts(self):
        return len(self.parts)

    def part_name(self, part):
        return f"{self.name}, stream {part}"

    def expected(self, part):
        return self.sizes[part]

    def stream(self, part):
        try:
            yield from self.parts[part]
        finally:
            self.ended.append(part)

    def identity(self):
        return f"{self.name} {self.parts}"
