"""The QuanTA paper's theory (arXiv:2406.00132, Section 6 and Figure 1), tried numerically."""
