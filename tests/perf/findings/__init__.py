"""The measurements behind docs/findings.md, one script for each of its questions; `common` judges its statements."""
