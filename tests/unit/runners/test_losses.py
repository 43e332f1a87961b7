"""Losses are told apart by what Ray raises, and each says the next step."""

import pickle

import pytest

from orchestrator.errors import LostError
from orchestrator.runners import losses
from orchestrator.runners.losses import Kind

exceptions = pytest.importorskip("ray.exceptions")


def _chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (exceptions.OutOfMemoryError("Task was killed due to the node running low on memory."), Kind.MEMORY),
        (exceptions.RayActorError(error_msg="The actor died because its node has died. Node Id: 7"), Kind.NODE),
        (
            exceptions.RayActorError(error_msg="Worker exit type: NODE_OUT_OF_MEMORY Detail: running low on memory"),
            Kind.MEMORY,
        ),
        (
            exceptions.RayActorError(error_msg="exit type: SYSTEM_ERROR, connection error code 2. End of file."),
            Kind.CRASH,
        ),
        (exceptions.RayActorError(), Kind.CRASH),
        (exceptions.WorkerCrashedError(), Kind.CRASH),
        (exceptions.LocalRayletDiedError(), Kind.NODE),
        (exceptions.NodeDiedError("x"), Kind.NODE),
        (exceptions.RuntimeEnvSetupError("no such image"), Kind.SETUP),
        (_chained(RuntimeError("Caught unexpected exception"), exceptions.OutOfMemoryError("x")), Kind.MEMORY),
        (_chained(exceptions.RayActorError(error_msg="x"), exceptions.RuntimeEnvSetupError("y")), Kind.SETUP),
        (ValueError("not of Ray's"), Kind.DRIVER),
    ],
    ids=lambda value: value if isinstance(value, Kind) else type(value).__name__,
)
def test_a_loss_is_named_by_what_ray_raised(error, kind):
    loss = losses.classify(error)

    assert loss.kind is kind
    assert "\n" not in str(loss)
    assert str(loss).endswith(loss.next)


def test_every_kind_has_a_next_step_of_its_own():
    steps = [losses.Loss(kind, "x").next for kind in Kind]

    assert len(set(steps)) == len(Kind)


def test_a_process_that_ended_is_worded():
    assert losses.of_process("raylet", -9).message == "Ray's raylet was killed by SIGKILL"
    assert losses.of_process("gcs_server", 1).message == "Ray's gcs_server ended with exit code 1"
    assert losses.ending(-99) == "was killed by signal 99"


def test_a_loss_crosses_processes_with_its_kind():
    lost = pickle.loads(pickle.dumps(LostError("the raylet is gone", Kind.NODE)))

    assert (str(lost), lost.kind) == ("the raylet is gone", "node")
