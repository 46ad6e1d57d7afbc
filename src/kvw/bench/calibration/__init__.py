"""Methods of a finished benchmark run at equal retention (UWC, Wang et al., arXiv 2406.09179)."""
