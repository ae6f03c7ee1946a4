"""Put the files that come with the package into the wheel: the page, the weights, the example photos, the documents."""

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Hook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # it uses those of the clone
            return
        root = Path(self.root)
        for pattern in runpy.run_path(str(root / "siamese" / "files.py"))["BUNDLED"]:
            for file in root.glob(pattern):
                build_data["force_include"][str(file)] = f"siamese/bundled/{file.relative_to(root).as_posix()}"
