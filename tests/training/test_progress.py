import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from BC_training.common.schema import Config, EarlyStoppingConfig
from BC_training.common.settings.evaluation import EvaluationConfig, RolloutConfig
from BC_training.data.order import SampleOrder
from BC_training.training.progress import TrainingProgress

FINITE = st.floats(-1e6, 1e6)
UNDEFINED = (None, math.nan)


def a_config(make_config, best_metric: str = "macro_f1", num_epochs: int = 100, **stopping) -> Config:
    early_stopping = EarlyStoppingConfig(**stopping) if stopping else None
    config = make_config(training={"num_epochs": num_epochs, "early_stopping": early_stopping})
    return replace(config, evaluation=EvaluationConfig(best_metric=best_metric))


def report(macro_f1=0.0, loss=1.0) -> dict:
    return {"macro_f1": macro_f1, "exact_match": 0.5, "loss": loss}


def note_all(config: Config, reports: list[dict]) -> tuple[TrainingProgress, list[bool]]:
    """Notes one evaluation after each epoch of ten steps, until the training is finished."""
    progress, best = TrainingProgress(), []
    for values in reports:
        if progress.is_finished(config):
            break
        progress.step += 10
        best.append(progress.note_scores(config, values))
        progress.close_epoch()
    return progress, best


# --- the best ------------------------------------------------------------------------------


@given(st.lists(FINITE | st.sampled_from(UNDEFINED), min_size=1, max_size=12), st.sampled_from(["macro_f1", "loss"]))
def test_the_best_epoch_is_the_first_with_the_highest_score(make_config, values, metric):
    progress, best = note_all(a_config(make_config, metric), [report(**{metric: v}) for v in values])
    worth = [-math.inf if v in UNDEFINED or v != v else -v if metric == "loss" else v for v in values]
    assert progress.best_score == max(worth)
    assert progress.best_step == 10 * (worth.index(max(worth)) + 1)
    assert best == [i == 0 or worth[i] > max(worth[:i]) for i in range(len(worth))]


def test_where_play_chooses_only_epochs_that_played_count(make_config):
    play = EvaluationConfig(best_metric="rollout", rollout=RolloutConfig("doom/deadly_corridor", every_n_epochs=2))
    config = replace(a_config(make_config, patience=2), evaluation=play)
    reports = [report() | ({} if value is None else {"rollout": value}) for value in (None, 5.0, None, 7.0, None, 6.0)]
    progress, best = note_all(config, reports)
    assert best == [False, True, False, True, False, False]
    assert (progress.best_score, progress.best_step) == (7.0, 40)
    assert progress.evaluations_without_gain == 1


# --- early stopping ------------------------------------------------------------------------


def epochs_of(scores: list[float | None], patience: int, min_delta: float) -> int:
    """The epoch after which a training with these scores stops; higher is better."""
    reference, since = None, 0
    for epoch, score in enumerate(scores, start=1):
        score = -math.inf if score is None or math.isnan(score) else score
        if reference is None or score > reference + min_delta:
            reference, since = score, 0
        else:
            since += 1
        if since == patience:
            return epoch
    return len(scores)


@given(
    st.lists(FINITE | st.sampled_from(UNDEFINED), min_size=1, max_size=20),
    st.integers(1, 4),
    st.floats(0, 10),
    st.sampled_from(["macro_f1", "loss"]),
)
def test_a_training_stops_when_evaluations_without_a_gain_reach_the_patience(
    make_config, values, patience, min_delta, metric
):
    config = a_config(make_config, metric=metric, patience=patience, min_delta=min_delta)
    progress, _ = note_all(config, [report(**{metric: v}) for v in values])
    scores = [v if v is None or metric == "macro_f1" else -v for v in values]
    assert progress.epochs == epochs_of(scores, patience, min_delta)
    assert progress.is_finished(config) == (progress.evaluations_without_gain == patience)


@pytest.mark.parametrize(
    ("scores", "min_delta", "epochs"),
    [
        ([1, 2, 3, 3, 3, 9], 0.0, 5),  # equal is no gain
        ([1, 2, 3, 2, 4, 5], 0.0, 6),  # a gain restores the patience
        ([1, 1.4, 1.8, 2.2, 2.6], 0.5, 5),  # small gains add up
        ([1, 1.4, 1.3, 2], 0.5, 3),
        ([1, 1.5, 1.5, 2], 0.5, 3),  # more than min_delta, not as much
        ([None, None, None, 1], 0.0, 3),  # undefined is no gain over undefined
        ([None, None, 1, None, 2], 0.0, 5),
    ],
)
def test_patience_counts_evaluations_without_a_gain(make_config, scores, min_delta, epochs):
    config = a_config(make_config, patience=2, min_delta=min_delta)
    assert note_all(config, [report(macro_f1=s) for s in scores])[0].epochs == epochs


def test_a_lower_loss_is_a_gain(make_config):
    config = a_config(make_config, metric="loss", patience=2)
    worse = [report(macro_f1=i, loss=i) for i in range(1, 9)]
    progress, best = note_all(config, worse)
    assert progress.epochs == 3
    assert best == [True, True, True]  # macro_f1 gains all the time, and best_metric is that
    assert note_all(config, worse[::-1])[0].epochs == 8


def test_without_early_stopping_only_the_epochs_count(make_config):
    config = a_config(make_config, num_epochs=4)
    progress, _ = note_all(config, [report()] * 9)
    assert progress.epochs == 4
    assert progress.is_finished(config)
    assert not replace(progress, epochs=3).is_finished(config)


def test_a_training_that_stopped_goes_on_with_more_patience(make_config):
    config = a_config(make_config, patience=2)
    progress, _ = note_all(config, [report()] * 9)
    assert progress.is_finished(config)
    assert not progress.is_finished(a_config(make_config, patience=3))
    assert not progress.is_finished(a_config(make_config))


def test_scores_of_another_metric_are_forgotten(make_config):
    by_f1, by_loss = a_config(make_config, patience=2), a_config(make_config, "loss", patience=2)
    progress, _ = note_all(by_f1, [report(macro_f1=0.6), report(macro_f1=0.5)])
    progress.forget_other_metrics(by_f1, by_f1)
    assert (progress.best_score, progress.patience_score, progress.evaluations_without_gain) == (0.6, 0.6, 1)
    progress.forget_other_metrics(by_f1, a_config(make_config, patience=2, metric="loss"))
    assert (progress.best_score, progress.patience_score, progress.evaluations_without_gain) == (0.6, None, 0)
    progress.forget_other_metrics(by_f1, by_loss)
    assert (progress.best_score, progress.best_step) == (None, None)
    assert progress.note_scores(by_loss, report(loss=0.3))  # -0.3, which is less than 0.6
    assert (progress.best_score, progress.patience_score) == (-0.3, -0.3)


@pytest.mark.parametrize("changed", [{"loss": "focal"}, {"label_smoothing": 0.1}, {"class_weights": "none"}])
def test_losses_of_another_kind_are_forgotten(make_config, changed):
    by_loss, by_f1 = a_config(make_config, "loss"), a_config(make_config)
    for before, is_kept in ((by_f1, True), (by_loss, False)):
        now = replace(before, training=replace(before.training, **changed))
        assert now != before
        progress = TrainingProgress(best_score=0.5, best_step=3)
        progress.forget_other_metrics(before, now)
        assert (progress.best_step == 3) == is_kept


def test_returns_of_other_episodes_are_forgotten(make_config):
    """A video, or how often it plays, changes nothing."""
    play = RolloutConfig("doom/deadly_corridor", every_n_epochs=2)
    before = replace(make_config(), evaluation=EvaluationConfig(best_metric="rollout", rollout=play))
    for changes, is_kept in (
        ({"video": False, "every_n_epochs": 1}, True),
        ({"episodes": 5}, False),
        ({"game": "doom/deadly_corridor?skill=3"}, True),
        ({"game": "doom/deadly_corridor?skill=5"}, False),
    ):
        evaluation = replace(before.evaluation, rollout=replace(play, **changes))
        progress = TrainingProgress(best_score=0.5, best_step=3)
        progress.forget_other_metrics(before, replace(before, evaluation=evaluation))
        assert (progress.best_step == 3) == is_kept


# --- the open epoch ------------------------------------------------------------------------


def test_closing_an_epoch_opens_the_next():
    progress = TrainingProgress(step=20, epochs=1, loss_sum=3.0, seconds=2.0, waited=0.5, best_step=20, log_bytes=7)
    progress.close_epoch()
    assert progress == TrainingProgress(step=20, epochs=2, best_step=20, log_bytes=7)


def test_the_speed_is_that_of_the_open_epoch():
    order = SampleOrder(num_samples=330, batch_size=32, seed=0)  # ten steps an epoch
    progress = TrainingProgress(step=25, epochs=2, seconds=4.0, waited=1.0)
    assert progress.speed(order) == (5 * 32 / 4.0, 0.25)
