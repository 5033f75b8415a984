"""moocore's hypervolumes and fronts of sets of points. Runs in its own environment; see `fronts.agreement`."""

import json
import sys

import moocore
import numpy as np

answers = []
for entry in json.load(sys.stdin):
    points, reference = np.array(entry["points"]), np.array(entry["reference"])
    front = moocore.is_nondominated(points, keep_weakly=True)
    answers.append({"hypervolume": float(moocore.hypervolume(points, ref=reference)), "front": front.tolist()})
json.dump(answers, sys.stdout)
