"""Zero-shot classification of stored pictures and sounds against any class list and template set.

`weights` turns prompts into a classifier, `evaluate` scores a data set from its stores, `live` makes a classifier from
any class list, `reports` writes what came out, `summary` puts several data sets into one table.
"""

from xmodal.zeroshot.evaluate import Classifier, Task, ZeroShotResult, evaluate_set
from xmodal.zeroshot.live import live_classifier
from xmodal.zeroshot.reports import write_result
from xmodal.zeroshot.weights import class_weights, weights_from_texts, zero_shot_scores

__all__ = [
    "Classifier",
    "Task",
    "ZeroShotResult",
    "class_weights",
    "evaluate_set",
    "live_classifier",
    "weights_from_texts",
    "write_result",
    "zero_shot_scores",
]
