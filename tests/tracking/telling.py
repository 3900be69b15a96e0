"""A run as the journal tells it, and its curve as MLflow shows it."""


def tell_run(journal, key="a", epochs=3, status="finished", arm="pool", **end):
    """Journal a run; its loss at epoch e is 1 / (1 + e), and epoch e was over 10 e seconds after the start."""
    began = 1_700_000_100.0
    journal.append(
        "run_started", run=key, phase="tune", arm=arm, seed=3, params={"lr": 0.1}, tags={"own": "x"}, time=began
    )
    for epoch in range(epochs):
        journal.append("epoch", run=key, epoch=epoch, metrics={"loss": 1 / (1 + epoch)}, time=began + 10 * epoch)
    journal.append("run_finished", run=key, status=status, **{"metrics": {"dev_test/correlation": 0.4}, **end})


def curve(runs, key, metric="loss"):
    history = runs.client.get_metric_history(runs()[key].info.run_id, metric)
    return [(point.step, point.value) for point in history]


LOSSES = [(0, 1.0), (1, 0.5), (2, 1 / 3)]
