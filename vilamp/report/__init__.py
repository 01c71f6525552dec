"""``report.html``: one page that shows a run or an evaluation, made of what lies in its folder.  Needs no torch and no network."""
