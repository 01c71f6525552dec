"""``report.html``: a page that shows a run or an evaluation, made of its folder.  Needs no torch and no network."""
