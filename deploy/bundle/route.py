#!/usr/bin/env python3
"""Routes a task to the data experts of a Clade bundle. Needs numpy and safetensors only.

As a command, it routes one of the report's classification sets, combines the experts' logits and
prints weights, entropy and accuracy, which equal the bundle's report:

    python route.py BUNDLE --rule paper --set 0

Classes of your own: embed them with the bundle's sentence encoder,

    clade-worker embed-classes --encoder DIR --classes classnames.txt --templates t.txt --out mine.safetensors
    python route.py BUNDLE --rule paper --classes mine.safetensors

and combine the logits that the experts give you (each expert is a folder that
`open_clip.create_model_and_transforms('local-dir:BUNDLE/experts/expert-0')` loads):

    import route
    router = route.load_router("BUNDLE")
    w = route.weights(route.load("mine.safetensors")["name"], router, "paper")
    logits = route.combine([image_features_i @ class_features_i.T for each expert i], w)

Logits are cosines of unit features: no logit scale. Everything is computed in float64.
"""

import argparse
import json
import math
import pathlib
import sys

import numpy as np
from safetensors import safe_open

FEW_CLASSES = 10  # below: the paper damps A, the code adds to the negative distance
MANY_CLASSES = 200  # above: the paper sharpens lambda, the code its factor
CODE_SHARPNESS = 5.0
CODE_FEWEST = 10.0
CODE_TEMPERATURE = 8.0


def load(path):
    """All arrays of a safetensors file by name."""
    with safe_open(str(path), framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def note(path):
    """What a file of the bundle says about its arrays."""
    with safe_open(str(path), framework="numpy") as file:
        return json.loads((file.metadata() or {}).get("clade", "{}"))


def load_router(bundle):
    """The router of a bundle: fine centres [m, d], the expert of each [m], and lambda."""
    path = pathlib.Path(bundle) / "router.safetensors"
    arrays, about = load(path), note(path)
    return {
        "centres": arrays["fine_centres"].astype(np.float64),
        "expert_of": arrays["fine_to_expert"].astype(np.int64),
        "experts": int(about["experts"]),
        "lambda": float(about["lambda"]),
        "sets": about["sets"],
        "arrays": arrays,
    }


def weights(class_embeddings, router, rule, lambda_=None, temperature=1.0, mean=False):
    """One weight per expert for a task of these classes; they sum to 1.

    class_embeddings: [classes, d] unit rows, of the class names for the rule "paper" and of the
    mean of the prompts for the rule "code".
    """
    classes = np.asarray(class_embeddings, dtype=np.float64)
    centres, count = router["centres"], len(classes)
    if classes.ndim != 2 or count == 0 or classes.shape[1] != centres.shape[1]:
        raise ValueError(f"class embeddings must be [classes, {centres.shape[1]}], not {classes.shape}")
    squared = squared_distances(classes, centres)
    nearest = squared.argmin(axis=1)
    squared = squared[np.arange(count), nearest]
    if rule == "paper":
        lambda_ = router["lambda"] if lambda_ is None else lambda_
        factor = math.exp(0.5 - math.sqrt(count)) if count < FEW_CLASSES else 1.0
        if count > MANY_CLASSES:
            lambda_ /= math.log(count)
        terms, own_temperature = factor * np.exp(-squared / lambda_), 1.0
    elif rule == "code":
        bonus = math.exp(0.5 - math.sqrt(count)) if count < FEW_CLASSES else 0.0
        sharpness = CODE_SHARPNESS * math.log10(max(CODE_FEWEST, count - MANY_CLASSES))
        terms = np.exp((bonus - np.sqrt(squared)) * sharpness)
        own_temperature = CODE_TEMPERATURE
    else:
        raise ValueError(f"rule must be paper or code, not {rule!r}")
    sums = np.bincount(router["expert_of"][nearest], weights=terms, minlength=router["experts"])
    sums /= (count if mean else 1.0) * own_temperature * temperature
    raised = np.exp(sums - sums.max())
    return raised / raised.sum()


def squared_distances(rows, centres):
    """[rows, centres], a few rows at a time so that no [rows, centres, d] array is built at once."""
    out = np.empty((len(rows), len(centres)))
    step = max(1, 4_000_000 // centres.size)
    for start in range(0, len(rows), step):
        part = rows[start : start + step, None, :] - centres[None, :, :]
        out[start : start + step] = np.square(part).sum(axis=2)
    return out


def entropy(weight):
    """In nats: 0 if one expert has it all, log(n) if all weigh the same."""
    positive = weight[weight > 0]
    return float(max(0.0, -(positive * np.log(positive)).sum()))


def combine(logits_per_expert, weight):
    """The weighted sum of the experts' logits, each [pictures, classes]."""
    return sum(w * np.asarray(logits, dtype=np.float64) for w, logits in zip(weight, logits_per_expert, strict=True))


def accuracy(logits, labels):
    """Top-1, top-5 and the mean recall of the classes that have pictures; ties go to the lower class."""
    own = logits[np.arange(len(labels)), labels][:, None]
    lower = np.arange(logits.shape[1])[None, :] < labels[:, None]
    rank = ((logits > own) | ((logits == own) & lower)).sum(axis=1)
    recalls = [float((rank[labels == label] == 0).mean()) for label in np.unique(labels)]
    return {"top1": float((rank == 0).mean()), "top5": float((rank < 5).mean()), "balanced": float(np.mean(recalls))}


def evaluate(bundle, router, rule, index, **settings):
    """Routes one of the report's classification sets and scores the experts' combined logits."""
    embeddings = router["arrays"][f"classification-{index}.{'name' if rule == 'paper' else 'prompts'}"]
    weight = weights(embeddings, router, rule, **settings)
    features = load(pathlib.Path(bundle) / "evaluation" / f"classification-{index}.safetensors")
    logits = [
        features[f"expert-{i}.image_features"].astype(np.float64) @ features[f"expert-{i}.class_features"].astype(np.float64).T
        for i in range(router["experts"])
    ]
    scores = accuracy(combine(logits, weight), features["labels"])
    return weight, scores


def main():
    parser = argparse.ArgumentParser(description="Route a task to the experts of a Clade bundle.")
    parser.add_argument("bundle", type=pathlib.Path, help="the bundle's folder")
    parser.add_argument("--rule", choices=["paper", "code"], default="paper")
    parser.add_argument("--set", type=int, default=0, help="which of the report's classification sets")
    parser.add_argument("--classes", type=pathlib.Path, help="class embeddings from `clade-worker embed-classes` instead")
    parser.add_argument("--lambda", dest="lambda_", type=float, help="of the paper's rule; the run's by default")
    parser.add_argument("--temperature", type=float, default=1.0, help="above 1 evens the weights out")
    parser.add_argument("--mean", action="store_true", help="mean over classes instead of their sum")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    settings = {"lambda_": args.lambda_, "temperature": args.temperature, "mean": args.mean}
    router = load_router(args.bundle)
    if args.classes:
        embeddings = load(args.classes)["name" if args.rule == "paper" else "prompts"]
        weight, scores = weights(embeddings, router, args.rule, **settings), {}
    else:
        known = [entry["index"] for entry in router["sets"]]
        if args.set not in known:
            sys.exit(f"the bundle has no classification set {args.set}; it has {known}")
        weight, scores = evaluate(args.bundle, router, args.rule, args.set, **settings)
    result = {"rule": args.rule, "weights": weight.tolist(), "entropy": entropy(weight), **scores}
    if args.json:
        print(json.dumps(result))
        return
    print("weights ", " ".join(f"{w:.4f}" for w in weight))
    print(f"entropy  {result['entropy']:.4f} nats of at most {math.log(len(weight)):.4f}")
    for name, value in scores.items():
        print(f"{name:<8} {value:.4f}")


if __name__ == "__main__":
    main()
