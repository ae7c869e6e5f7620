"""What a training writes down: loss.csv, loss.png, and TensorBoard events where that library is installed."""

import csv
from pathlib import Path

from sonic_ms.errors import OutputError

NOT_CURVES = ("step", "seconds", "learning_rate", "samples_per_second", "loss_scale")


class Log:
    """Rows of a training, one every few steps. A group of processes writes one log: `active` on rank 0 only."""

    def __init__(self, folder, resumed_at=None, active=True):
        self.folder, self.active, self.rows = Path(folder), active, []
        path = self.folder / "loss.csv"
        if resumed_at is not None and path.is_file():
            with open(path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= resumed_at]
        self.events = _events(self.folder / "events", resumed_at) if active else None

    def add(self, row):
        self.rows.append(row)
        if not self.active:
            return
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        try:
            with open(self.folder / "loss.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, names)
                writer.writeheader()
                writer.writerows(self.rows)
        except OSError as error:
            raise OutputError(f"cannot write {self.folder / 'loss.csv'}: {error.strerror}") from error
        if self.events:
            for name, value in row.items():
                if name != "step":
                    self.events.add_scalar(name, float(value), row["step"])
            self.events.flush()

    def plot(self):
        """Draw the curves as loss.png; nothing without matplotlib."""
        if not self.active or not self.rows:
            return
        try:
            import matplotlib
        except ImportError:
            return
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axis = plt.subplots(figsize=(7, 4))
        for name in dict.fromkeys(name for row in self.rows for name in row):
            points = [(int(row["step"]), float(row[name])) for row in self.rows if row.get(name) not in ("", None)]
            if name not in NOT_CURVES and not name.startswith("val_") and points:
                axis.plot(*zip(*points), label=name)
        axis.set_xlabel("step")
        axis.set_yscale("log")
        axis.legend()
        figure.tight_layout()
        try:
            figure.savefig(self.folder / "loss.png")
        except OSError as error:
            raise OutputError(f"cannot write {self.folder / 'loss.png'}: {error.strerror}") from error
        finally:
            plt.close(figure)

    def close(self):
        if self.events:
            self.events.close()


def _events(folder, resumed_at):
    """Writer of TensorBoard events, or None without tensorboardX (part of the extra `train`)."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=resumed_at)
