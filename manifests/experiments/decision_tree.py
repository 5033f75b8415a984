"""Five-fold accuracy of a decision tree on scikit-learn's digits; the trial of ``decision-tree.yaml``."""

import argparse

from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.tree import DecisionTreeClassifier


def main() -> None:
    """Print ``accuracy`` (mean over the folds) and ``leaves`` (of the tree on all data)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--criterion", choices=["gini", "entropy", "log_loss"], default="gini")
    parser.add_argument("--splitter", choices=["best", "random"], default="best")
    parser.add_argument("--max-depth", type=int, default=32)
    parser.add_argument("--min-samples-split", type=int, default=2)
    parser.add_argument("--min-samples-leaf", type=int, default=1)
    options = parser.parse_args()
    images, labels = load_digits(return_X_y=True)
    tree = DecisionTreeClassifier(**vars(options), random_state=0)
    folds = StratifiedKFold(n_splits=5, shuffle=True, random_state=0)
    accuracy = cross_val_score(tree, images, labels, cv=folds).mean()
    print(f"accuracy={accuracy:.6f}")
    print(f"leaves={tree.fit(images, labels).get_n_leaves()}")


if __name__ == "__main__":
    main()
