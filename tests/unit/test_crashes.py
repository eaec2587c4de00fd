"""Crash loops as KubeRay makes them, over literal snapshots: a pod that ended is replaced, and the next one ends too."""

from __future__ import annotations

import pytest

from infra.readiness import CRASHES, Seen, Verdict
from tests.unit.snapshots import Body, at, ended, head, judged, pod, worker


def test_one_pod_that_ended_is_no_failure_and_the_second_of_its_group_is() -> None:
    seen = Seen()
    first = judged(head(), worker(0, ready=False, containerStatuses=[ended(1, message="no such file")]), seen=seen)
    assert first == Verdict(progress="cpu 0/1")
    between = judged(head(), worker(1, ready=False), seen=seen)
    assert between == Verdict(progress="cpu 0/1")
    second = judged(head(), worker(1, ready=False, containerStatuses=[ended(2, message="no such file")]), seen=seen)
    assert second.failure == (
        "pod dev-cpu-1, container ray-head: Error, exit code 2: no such file; 2 pods of the group ended so: a crash loop"
    )


def test_the_same_pod_seen_again_is_one() -> None:
    seen = Seen()
    for _ in range(CRASHES + 1):
        assert judged(head(), worker(ready=False, containerStatuses=[ended(1)]), seen=seen).failure is None


def test_pods_of_two_groups_are_no_crash_loop() -> None:
    seen = Seen()
    assert judged(pod(containerStatuses=[ended(1)]), worker(ready=False), seen=seen).failure is None
    assert judged(head(), worker(ready=False, containerStatuses=[ended(1)]), seen=seen).failure is None


@pytest.mark.parametrize(
    ("deleted", "grace", "finished", "code", "crash"),
    [
        (-5, 0, None, 1, False),  # when it ended is not known
        (-5, 0, -9, 1, True),  # ended, and was deleted for it
        (-5, 0, -4, 1, False),  # ended because it was deleted
        (5, 30, -26, 0, True),  # the time of deletion is that of the grace's end
        (5, 30, -24, 1, False),
        (5, 30, -25, 1, True),  # in the same second: by its exit code
        (5, 30, -25, 0, False),
        (5, 30, -25, 137, False),
        (5, 30, -25, 143, False),
    ],
)
def test_a_pod_that_is_being_deleted_crashed_only_if_it_ended_before(
    deleted: int, grace: int, finished: int | None, code: int, crash: bool
) -> None:
    seen = Seen()
    times: Body = {} if finished is None else {"finishedAt": at(finished)}
    for number in range(CRASHES):
        going = worker(number, ready=False, containerStatuses=[ended(code, **times)])
        going["metadata"] |= {"deletionTimestamp": at(deleted), "deletionGracePeriodSeconds": grace}
        verdict = judged(head(), worker(9), going, seen=seen)
    assert (verdict.failure is not None) is crash


@pytest.mark.parametrize(("started", "loop"), [(-19, False), (-11, False), (-10, True), (-3, True)])
def test_pods_that_end_at_once_are_no_loop_and_one_after_another_are(started: int, loop: bool) -> None:
    """Several at once is a head that went away; a loop is a pod that was begun when the one before had ended."""
    seen = Seen()
    first = ended(1, startedAt=at(-20), finishedAt=at(-10))
    second = ended(1, startedAt=at(started), finishedAt=at(-1))
    verdict = judged(head(), worker(0, containerStatuses=[first]), worker(1, containerStatuses=[second]), seen=seen)
    assert (verdict.failure is not None) is loop


def test_pods_of_an_older_template_are_not_this_one_s_crashes() -> None:
    seen = Seen()
    for number in range(CRASHES + 1):
        old = worker(number, "c0", ready=False, containerStatuses=[ended(1)])
        assert judged(head(), worker(9), old, seen=seen) == Verdict(progress="1 old pods to end")


def test_an_init_container_that_ended_well_is_none_and_one_that_did_not_is() -> None:
    seen = Seen()
    for number in range(CRASHES + 1):
        verdict = judged(head(), worker(number, ready=False, initContainerStatuses=[ended(0, name="init")]), seen=seen)
        assert verdict == Verdict(progress="cpu 0/1")
    failed = [judged(head(), worker(10 + i, ready=False, initContainerStatuses=[ended(3, name="init")]), seen=seen) for i in (0, 1)]
    assert failed[0].failure is None
    assert "container init: Error, exit code 3; 2 pods" in str(failed[1].failure)


def test_a_ray_container_that_ended_with_0_is_one() -> None:
    seen = Seen()
    judged(head(), worker(0, ready=False, containerStatuses=[ended(0)]), seen=seen)
    assert "Completed, exit code 0; 2 pods" in str(judged(worker(1, containerStatuses=[ended(0)]), seen=seen).failure)


def test_only_the_end_of_a_long_last_message_is_told() -> None:
    seen, status = Seen(), ended(1, message="#" * 5000 + "last words")
    verdict = [judged(worker(number, containerStatuses=[status]), seen=seen) for number in (0, 1)][1]
    assert str(verdict.failure).count("#") == 300 - len("last words")
