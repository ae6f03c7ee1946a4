"""Find and group the people of LFW, for search.py, beside face_recognition.

Both use one face of each photo: the main face, and for face_recognition the face nearest to the centre, as in peers.py.
A photo without a face counts as not found, and as a group of its own. LFW_ALIASES are one person.
"""

import argparse
import time
from itertools import pairwise

import numpy as np

import siamese
from siamese.calibration import Calibration
from siamese.data.lfw import LFW_ALIASES
from siamese.search.find import FIND_FMR
from siamese.search.index import Index
from siamese.search.people import GROUP_FMR, partition

RATES = (1.0, 0.1, FIND_FMR)  # expected false matches of a search
PEER_THRESHOLD = 0.6  # of face_recognition.compare_faces
WHISPERS = (0.42, 0.44, 0.45, 0.46, 0.48, 0.5)  # thresholds of dlib's Chinese whispers; 0.5 is the usual one

Search = tuple[np.ndarray, np.ndarray]  # distances of all photos from a portrait, and whether they show the person


def peer(args: argparse.Namespace) -> dict:
    from peers import embed_peer

    files = sorted(args.photos.glob("*/*.jpg"))
    z = np.stack([embed_peer(file.read_bytes()) for file in files])
    np.savez(args.peer, names=[file.relative_to(args.photos).as_posix() for file in files], z=z)
    return {"photos": len(files), "without_face": int(np.isnan(z).any(1).sum())}


def main_faces(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the photo, the embedding (N, D) and the quality of the main face of each photo; NaN without a face."""
    with Index(args.index, siamese.load()) as index:
        z = np.concatenate([block for _, block in index.blocks()])
        faces, names = index.faces(), sorted(index.files())
    number = {name: row for row, name in enumerate(names)}
    result = np.full((len(names), z.shape[1]), np.nan, np.float32), np.zeros(len(names), np.float32)
    for face, row in zip(faces, z, strict=True):
        if face.number == 1:
            result[0][number[face.photo]], result[1][number[face.photo]] = row, face.quality
    return np.array(names), *result


def peer_faces(args: argparse.Namespace, names: np.ndarray) -> np.ndarray:
    """Return the embeddings of face_recognition, (N, 128)."""
    with np.load(args.peer) as arrays:
        rows = dict(zip(arrays["names"].tolist(), arrays["z"], strict=True))
    return np.stack([rows[name] for name in names])


def identities(names: np.ndarray) -> np.ndarray:
    people = [name.partition("/")[0] for name in names]
    return np.unique([LFW_ALIASES.get(person, person) for person in people], return_inverse=True)[1]


def search_all(z: np.ndarray, person: np.ndarray) -> list[Search]:
    """For the first photo of each person with several: the distances of all other photos, and whether they match."""
    z = np.nan_to_num(z, nan=100)  # far from everything
    searches = []
    for number in np.flatnonzero(np.bincount(person) > 1):
        portrait = int(np.flatnonzero(person == number)[0])
        distances = np.delete(np.linalg.norm(z - z[portrait], axis=1), portrait)
        searches.append((distances, np.delete(person == number, portrait)))
    return searches


def ranking(searches: list[Search]) -> dict:
    first, precision = [], []
    for distances, same in searches:
        hits = same[np.argsort(distances, kind="stable")]
        ranks = np.flatnonzero(hits) + 1
        first.append(hits[0])
        precision.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return {"searches": len(first), "recall_at_1": np.mean(first), "mean_average_precision": np.mean(precision)}


def count_matches(searches: list[Search], matches: list[np.ndarray]) -> dict:
    """Return the share found and the false matches, given which faces match in each search."""
    false = np.array([(match & ~same).sum() for (_, same), match in zip(searches, matches, strict=True)])
    found = sum((match & same).sum() for (_, same), match in zip(searches, matches, strict=True))
    return {
        "found": found / sum(same.sum() for _, same in searches),
        "false_matches": false.mean(),
        "with_any": (false > 0).mean(),
    }


def find_people(args: argparse.Namespace) -> dict:
    calibration = siamese.load().calibration
    names, z, quality = main_faces(args)
    person = identities(names)
    known, count = search_all(z, person), len(names) - 1
    portraits = [int(np.flatnonzero(person == number)[0]) for number in np.flatnonzero(np.bincount(person) > 1)]
    scores = [
        calibration.score(distances, np.stack([np.full(count, quality[row]), np.delete(quality, row)], axis=1))
        for (distances, _), row in zip(known, portraits, strict=True)
    ]
    result: dict = {"faces": count, "siamese": ranking(known), "rates": {}}
    for fmr in RATES:
        needed = calibration.needed(fmr, count)
        matches = [score >= needed for score in scores]
        more = [(match & ~same).sum() > fmr for (_, same), match in zip(known, matches, strict=True)]
        result["rates"][f"{fmr:g}"] = {
            "threshold": calibration.distance_at(needed),
            **count_matches(known, matches),
            "with_more_than_announced": np.mean(more),
        }
    result["probability"] = reliability(calibration, known, scores)
    if args.peer:
        other = search_all(peer_faces(args, names), person)
        matches = [distances <= PEER_THRESHOLD for distances, _ in other]
        default = {"threshold": PEER_THRESHOLD, **count_matches(other, matches)}
        result["face_recognition"] = {**ranking(other), "default": default}
    return result


def reliability(calibration: Calibration, searches: list[Search], scores: list[np.ndarray]) -> list[dict]:
    """Compare the announced probability with the share of matches. Each search has one face to be found."""
    rng, announced, actual = np.random.default_rng(0), [], []
    for (_, same), score in zip(searches, scores, strict=True):
        kept = ~same
        kept[rng.choice(np.flatnonzero(same))] = True
        announced.append(calibration.probability_among(score, int(kept.sum()))[kept])
        actual.append(same[kept])
    p, is_same = np.concatenate(announced), np.concatenate(actual)
    edges = (0.01, 0.1, 0.3, 0.7, 0.9, 0.99, 1.01)
    bins = [(p >= low) & (p < high) for low, high in pairwise(edges)]
    return [{"faces": int(b.sum()), "announced": p[b].mean(), "same": is_same[b].mean()} for b in bins]


def b_cubed(labels: np.ndarray, truth: np.ndarray) -> dict:
    """Bagga and Baldwin, "Algorithms for Scoring Coreference Chains", 1998."""
    pairs = np.unique(labels.astype(np.int64) * (truth.max() + 1) + truth, return_inverse=True, return_counts=True)
    both = pairs[2][pairs[1]]
    precision, recall = (both / np.bincount(labels)[labels]).mean(), (both / np.bincount(truth)[truth]).mean()
    f = 2 * precision * recall / (precision + recall)
    return {"groups": len(np.unique(labels)), "precision": precision, "recall": recall, "f": f}


def to_labels(groups: list[list[int]], count: int) -> np.ndarray:
    """Give each row the number of its group, and rows in no group a group of their own."""
    labels = np.full(count, -1)
    for number, rows in enumerate(groups):
        labels[rows] = number
    alone = labels < 0
    labels[alone] = len(groups) + np.arange(alone.sum())
    return labels


def group_lfw(args: argparse.Namespace) -> dict:
    calibration = siamese.load().calibration
    names, z, quality = main_faces(args)
    truth, rows = identities(names), np.flatnonzero(~np.isnan(z).any(1))
    result: dict = {"photos": len(names), "people": int(truth.max()) + 1, "siamese": {}}
    for fmr in (1.0, GROUP_FMR, 0.1, FIND_FMR):
        needed = calibration.needed(fmr, len(rows))
        began = time.perf_counter()
        people, left_over = partition(z[rows], quality[rows], rows, calibration, needed)
        seconds = round(time.perf_counter() - began, 1)
        scores = b_cubed(to_labels([rows[members].tolist() for members in people], len(names)), truth)
        result["siamese"][f"{fmr:g}"] = {
            "threshold": calibration.distance_at(needed),
            **scores,
            "left_over": len(left_over),
            "seconds": seconds,
        }
    if args.peer:
        result["face_recognition"] = whispers(peer_faces(args, names), truth)
    return result


def whispers(z: np.ndarray, truth: np.ndarray) -> dict:
    import dlib

    rows = np.flatnonzero(~np.isnan(z).any(1))
    vectors, result = [dlib.vector(row) for row in z[rows].astype(float)], {}
    for threshold in WHISPERS:
        dlib_labels = np.array(dlib.chinese_whispers_clustering(vectors, threshold))
        groups = [rows[dlib_labels == label].tolist() for label in np.unique(dlib_labels)]
        result[f"{threshold:g}"] = b_cubed(to_labels(groups, len(z)), truth)
    return result
