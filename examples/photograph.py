"""Put the Hubble Deep Field, as scikit-image ships it, beside this file: ``python examples/photograph.py``."""

import importlib.util
import shutil
import sys
from pathlib import Path

NAME = "hubble_deep_field.jpg"


def bundled_photograph() -> Path:
    """Return where scikit-image keeps the photograph, without importing scikit-image (which takes seconds)."""
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        sys.exit("scikit-image is not installed: pip install 'meshnode[examples]'")
    return Path(package.submodule_search_locations[0]) / "data" / NAME


if __name__ == "__main__":
    target = Path(__file__).with_name(NAME)
    shutil.copyfile(bundled_photograph(), target)
    print(target)
