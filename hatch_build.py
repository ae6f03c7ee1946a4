"""Put exactly the files of `siamese/files.py` into the wheel: the code, page, weights, example photos and documents."""

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Hook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # it uses those of the clone
            return
        files = runpy.run_path(str(Path(self.root) / "siamese" / "files.py"))
        for name, file in files["project_files"]().items():
            build_data["force_include"][str(file)] = name if name in files["PACKAGED"] else f"siamese/bundled/{name}"
