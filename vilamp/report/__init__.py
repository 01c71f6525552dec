"""``report.html``: one page that shows a run, made of what lies in the run's folder.  Needs no torch and no network."""
