"""What of the README is written by scripts: the text between two markers."""

from pathlib import Path

from benchmarks.paths import ROOT

README = ROOT / "README.md"


def update_readme(readme: Path, text: str, markers: tuple[str, str]) -> bool:
    """Replace what stands between the markers; False where the README has none."""
    if not readme.exists():
        return False
    content = readme.read_text()
    before, begin, rest = content.partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not (begin and end):
        return False
    readme.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
    return True
