"""Results as tables, figures and pages: text, Markdown, CSV, LaTeX."""
