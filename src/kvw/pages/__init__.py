"""Pages: one self-contained HTML file each, without scripts, for the screen and for paper.

A page is a template in ``templates/`` that extends ``base.html`` and is filled by :func:`page`.
"""

from kvw.pages.frame import Verdict, page

__all__ = ["Verdict", "page"]
