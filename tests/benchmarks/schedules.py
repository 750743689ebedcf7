"""What schedules cost, in lag and in polls: two tables, ratios first, and the pictures of the docs.

All of it is simulated, with a seed, so that it comes out the same again. In the first table every
cover is alone. In the second the package's own rate limiter, polls and waits run in virtual time.
Run it with what the dependency groups `test` and `bench` hold:

    PYTHONPATH=tests python tests/benchmarks/schedules.py
"""

from pathlib import Path

from schedule_pictures import draw_lag, draw_polls
from simulated_covers import (
    DISTRIBUTIONS,
    Ceilings,
    Crowd,
    Distribution,
    Every,
    Heedless,
    lag_and_polls,
    price_within,
)

from kie_cover_async import AdaptiveSchedule, ExponentialSchedule

ALONE, TOGETHER = 4000, 3000
IMAGES = Path(__file__).parents[2] / "docs" / "images"
# Of the interval at which, without any queue, the polls would just fit the rate limiter.
SHARES = [0.5 + 0.05 * step for step in range(16)]


def alone(distribution: Distribution) -> None:
    durations = distribution.sample(ALONE)
    base, polls = lag_and_polls(ExponentialSchedule(), durations)
    print(f"\n{distribution.name}\n  ratio     lag   polls")

    def show(name: str, lag: float, polls: float) -> None:
        print(f"   {lag / base:.2f}  {lag:6.2f}  {polls:6.2f}   {name}")

    def adaptive(price: float) -> tuple[float, float]:
        return lag_and_polls(AdaptiveSchedule(poll_cost=price), durations)

    show("ExponentialSchedule()", base, polls)
    fitting = round(price_within(polls, adaptive), 3)
    for price in (fitting, 0.3):
        show(f"AdaptiveSchedule(poll_cost={price})", *adaptive(price))
    show("the best of all, were the distribution known", *distribution.best_within(polls))


def together(distribution: Distribution) -> None:
    ceilings = Ceilings(distribution, TOGETHER)
    adaptive = ceilings.run(AdaptiveSchedule(max_delay=60.0))
    # The first poll comes at once, and the last one is half an interval late.
    longest = distribution.mean / (ceilings.polls_a_second / ceilings.new_a_second - 1.5)
    fixed = {longest * share: ceilings.run(Every(longest * share)) for share in SHARES}
    # Any interval becomes long enough by queueing; these queue no longer than what they are
    # compared with.
    fitting = [seconds for seconds in fixed if fixed[seconds].queue <= adaptive.queue]
    best = min(fitting, key=lambda seconds: fixed[seconds].lag)

    def show(name: str, crowd: Crowd) -> None:
        print(
            f"   {crowd.lag / fixed[best].lag:.2f}  {crowd.lag:6.2f}  {crowd.polls:6.2f}"
            f"  {crowd.queue:6.2f}  {crowd.most_polls:6d}         {name}"
        )

    print(f"\n{distribution.name}\n  ratio     lag   polls   queue  in one second")
    show(f"every {best:.1f} s, the best interval that queues no longer than adaptive", fixed[best])
    show("AdaptiveSchedule(max_delay=60.0)", adaptive)
    heedless = Heedless(AdaptiveSchedule(max_delay=60.0))
    show("the same, were there no pressure", ceilings.run(heedless))
    show("AdaptiveSchedule()", ceilings.run(AdaptiveSchedule()))
    show("ExponentialSchedule()", ceilings.run(ExponentialSchedule()))
    show("every 0.1 s: the queue is all there is between polls", ceilings.run(Every(0.1)))
    lag, polls = distribution.best_within(ceilings.polls_a_second / ceilings.new_a_second)
    lag += ceilings.latency
    print(
        f"   {lag / fixed[best].lag:.2f}  {lag:6.2f}  {polls:6.2f}    0.00"
        "                 the best of all, were the distribution known and nobody in the way"
    )


def main() -> None:
    print("Each cover alone: mean seconds of lag, polls for each cover")
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
