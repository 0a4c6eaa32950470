"""Figures of maps and tables with matplotlib: where things are, how alike, how sure.

Each function returns a `matplotlib.figure.Figure` and takes ``ax=``, axes of your own; no window is
opened and the backend stays as it is. `save` writes one as PNG, SVG or PDF, the same bytes each
time. It needs the extra ``plot``.
"""

from rs_embed.plotting.canvas import save
from rs_embed.plotting.coverage import coverage
from rs_embed.plotting.distributions import histogram
from rs_embed.plotting.kinds import change, clusters, pca, similarity

__all__ = ["change", "clusters", "coverage", "histogram", "pca", "save", "similarity"]
