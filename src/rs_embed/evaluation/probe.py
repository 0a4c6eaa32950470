"""Class by a linear probe: logistic regression on standardised vectors."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._optional import require
from rs_embed.evaluation.baselines import standardised

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEPS = 1000


def check_installed() -> None:
    """Raise `MissingDependencyError` unless scikit-learn is installed."""
    require("sklearn.linear_model", extra="train", purpose="the linear probe")


def linear_probe(
    references: NDArray[Any], classes: NDArray[np.intp], queries: NDArray[Any]
) -> NDArray[np.intp]:
    """Return the class of each query by a logistic regression that was fitted to the references.

    Arrays are as for `nearest_neighbours`. Vectors are standardised with mean and standard
    deviation of the references; the regression is multinomial with an L2 penalty of C = 1.

    Raises
    ------
    MissingDependencyError
        If scikit-learn is not installed.
    """
    check_installed()
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(max_iter=_STEPS)
    with warnings.catch_warnings():
        # Where it has not quite converged after so many steps, the classes hardly change any more.
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(standardised(references, references), classes)
    predicted: NDArray[np.intp] = regression.predict(standardised(queries, references))
    return predicted
