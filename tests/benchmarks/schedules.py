"""The lag and the polls of schedules: two tables, ratios first, and the pictures of the docs.

The simulations are seeded and therefore reproducible. In the first table every cover is polled
alone. In the second the package's own rate limiter, polls and waits run in virtual time. Run it
with the dependency groups `test` and `bench` installed:

    PYTHONPATH=tests python tests/benchmarks/schedules.py
"""

from pathlib import Path

from schedule_pictures import draw_lag, draw_polls
from simulated_covers import (
    DISTRIBUTIONS,
    Distribution,
    Every,
    Results,
    VendorLimits,
    WithoutPressure,
    lag_and_polls,
    poll_cost_within,
)

from kie_cover_async import AdaptiveSchedule, ExponentialSchedule

ALONE, TOGETHER = 4000, 3000
IMAGES = Path(__file__).parents[2] / "docs" / "images"
# Shares of the interval at which the polls would just fit the rate limiter without a queue.
SHARES = [0.5 + 0.05 * step for step in range(16)]


def alone(distribution: Distribution) -> None:
    durations = distribution.sample(ALONE)
    base, polls = lag_and_polls(ExponentialSchedule(), durations)
    print(f"\n{distribution.name}\n  ratio     lag   polls")

    def show(name: str, lag: float, polls: float) -> None:
        print(f"   {lag / base:.2f}  {lag:6.2f}  {polls:6.2f}   {name}")

    def adaptive(poll_cost: float) -> tuple[float, float]:
        return lag_and_polls(AdaptiveSchedule(poll_cost=poll_cost), durations)

    show("ExponentialSchedule()", base, polls)
    fitting = round(poll_cost_within(polls, adaptive), 3)
    for poll_cost in (fitting, 0.3):
        show(f"AdaptiveSchedule(poll_cost={poll_cost})", *adaptive(poll_cost))
    show("the optimum if the distribution were known", *distribution.best_within(polls))


def together(distribution: Distribution) -> None:
    limits = VendorLimits(distribution, TOGETHER)
    adaptive = limits.run(AdaptiveSchedule(max_delay=60.0))
    # The first poll is immediate, and the last one is half an interval late.
    longest = distribution.mean / (limits.polls_a_second / limits.new_a_second - 1.5)
    fixed = {longest * share: limits.run(Every(longest * share)) for share in SHARES}
    # Queueing makes any interval long enough: compare only those with a queue as short.
    fitting = [seconds for seconds in fixed if fixed[seconds].queue <= adaptive.queue]
    best = min(fitting, key=lambda seconds: fixed[seconds].lag)

    def show(name: str, results: Results) -> None:
        print(
            f"   {results.lag / fixed[best].lag:.2f}  {results.lag:6.2f}  {results.polls:6.2f}"
            f"  {results.queue:6.2f}  {results.most_polls:6d}         {name}"
        )

    print(f"\n{distribution.name}\n  ratio     lag   polls   queue  in one second")
    show(f"every {best:.1f} s, the best interval that queues no longer than adaptive", fixed[best])
    show("AdaptiveSchedule(max_delay=60.0)", adaptive)
    without_pressure = WithoutPressure(AdaptiveSchedule(max_delay=60.0))
    show("the same without pressure", limits.run(without_pressure))
    show("AdaptiveSchedule()", limits.run(AdaptiveSchedule()))
    show("ExponentialSchedule()", limits.run(ExponentialSchedule()))
    show("every 0.1 s: only the queue separates polls", limits.run(Every(0.1)))
    lag, polls = distribution.best_within(limits.polls_a_second / limits.new_a_second)
    lag += limits.latency
    print(
        f"   {lag / fixed[best].lag:.2f}  {lag:6.2f}  {polls:6.2f}    0.00"
        "                 the optimum if the distribution were known and nothing queued"
    )


def main() -> None:
    print("Each cover alone: mean lag in seconds, and polls per cover")
    for distribution in DISTRIBUTIONS:
        alone(distribution)
    print(
        "\nTwo new covers and ten polls a second: as above, and seconds in the rate limiter's queue"
    )
    for distribution in DISTRIBUTIONS:
        together(distribution)
    IMAGES.mkdir(exist_ok=True)
    draw_polls(IMAGES / "polls-by-age.svg")
    draw_lag(IMAGES / "lag-against-polls.svg")


if __name__ == "__main__":
    main()
