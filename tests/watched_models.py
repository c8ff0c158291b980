"""Models in use: hours in a model's folder, some of them in less light."""

import shutil
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np

from iadbe.monitoring import reference
from iadbe.monitoring.monitor import Monitor
from iadbe.running.store import Store


def copied(fitted, folder):
    """Return a copy of the store with a fitted model, with the model's folder."""
    shutil.copytree(fitted.store.root, folder / "runs")
    store = Store(folder / "runs")
    return SimpleNamespace(store=store, run=fitted.run, parts=fitted.parts, model=next(store.root.glob("*/model")))


def use(model, hours=6, dimming=0.97, images=40, seed=0):
    """Calibrate a model's folder on 60 made images, and count some in each hour until now, ever darker."""
    rng = np.random.default_rng(seed)

    def image(light=1.0):
        return {"score": float(rng.normal(5, 1)), "brightness": light * float(rng.normal(0.5, 0.02))}

    reference.write(model, reference.reference_of([image() for _ in range(60)]))
    now = datetime.now(UTC)
    time = [now]
    monitor = Monitor(model, "watch", lambda: time[0])
    for hour in range(hours):
        time[0] = now - timedelta(hours=hours - hour)
        for n in range(images):
            monitor.record(image(dimming**hour), "reject" if n == 0 else "good")
    monitor.flush()
