"""``metrics.csv``: a row for everything that is logged at once.  What stands in it stays, whatever ends the run."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from vilamp.training.checkpoints import UNFINISHED, write_whole
from vilamp.training.ranks import first_rank


class KeptRows(ExperimentWriter):
    """Lightning's writer, whose file is written anew where a column comes: as a whole, or not at all."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Lightning empties the file first, and where the disk is full its rows are gone.

        Raises:
            OSError: the disk is full; the file is as it was.
        """
        path = Path(self.metrics_file_path)
        with path.open(newline="") as lines:
            reader = csv.DictReader(lines)
            rows = list(reader)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames)
        writer.writeheader()
        writer.writerows(rows)
        try:
            write_whole(path, lambda file: file.write(text.getvalue().encode()))
        except OSError:
            self.metrics_keys = list(reader.fieldnames or ())  # or the next save would write under the old header
            raise


def metrics_file(folder: Path, steps_behind: int = 0) -> CSVLogger:
    """Begins ``metrics.csv`` anew, with its rows of the steps behind.

    Args:
        folder: the run's.
        steps_behind: of a run that goes on.
    """
    logger = CSVLogger(folder, name="", version="")
    if not first_rank():  # Lightning's logger writes on the first rank only
        return logger
    # Lightning removes a file that is there.  Under this name it outlives a kill before its rows are written again.
    file, before = folder / "metrics.csv", folder / "metrics.before.csv"
    if steps_behind and file.exists() and not before.exists():
        file.rename(before)
    logger._experiment = KeptRows(logger.log_dir)
    if steps_behind and before.exists():
        with before.open(newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if (row.get("step") or "").isdigit()]
        logger.experiment.metrics = [
            {name: value for name, value in row.items() if value} for row in rows if int(row["step"]) < steps_behind
        ]
        logger.save()
    before.unlink(missing_ok=True)
    (folder / UNFINISHED).unlink(missing_ok=True)  # of a run that was killed while it wrote
    return logger
