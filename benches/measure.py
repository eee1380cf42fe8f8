"""Turns and statistics: contenders are measured in turn and compared by ratios.

Figures drift from hour to hour; the ratio of two figures that are taken one after the other hardly
does. So the contenders of a row take turns, A B A B … Each turn is a batch of runs and counts as
one figure. The two figures of a turn make a ratio, and the median of the ratios is the claim.
"""

import statistics
from dataclasses import dataclass, field

# Minimum of turns for a claim.
LEAST_TURNS = 5

# A middle half wider than this part of the median is marked as unstable.
UNSTABLE = 0.10


@dataclass(frozen=True)
class Plan:
    """How much to measure; `quick` only checks that everything runs."""

    quick: bool

    def turns(self, wanted):
        """Number of turns of a row that needs `wanted`."""
        return 1 if self.quick else max(wanted, LEAST_TURNS)

    def runs(self, wanted):
        """Number of runs in a batch that needs `wanted`."""
        return min(wanted, 2) if self.quick else wanted

    def seconds(self, wanted):
        """How long a batch takes that needs `wanted` seconds."""
        return 0.1 if self.quick else wanted

    def size(self, wanted, enough):
        """Size of something; `enough` of it in a quick run."""
        return enough if self.quick else wanted


@dataclass
class Figures:
    """The figures of one contender, one for each turn, and its failures."""

    contender: object
    of_turns: list = field(default_factory=list)
    failures: list = field(default_factory=list)

    @property
    def median(self):
        """Median over all turns; None if there is not one."""
        figures = [figure for figure in self.of_turns if figure is not None]
        return statistics.median(figures) if figures else None

    @property
    def middle_half(self):
        """First and third quartile."""
        return quartiles([figure for figure in self.of_turns if figure is not None])


class Claim:
    """A figure of each turn, and a goal for the median of all turns."""

    @property
    def median(self):
        return statistics.median(self.of_turns) if self.of_turns else None

    @property
    def middle_half(self):
        """First and third quartile."""
        return quartiles(self.of_turns)

    @property
    def is_met(self):
        """None if there is no goal."""
        if self.goal is None:
            return None
        if self.median is None:
            return False
        return self.median >= self.goal if self.goal_is_least else self.median <= self.goal


@dataclass(frozen=True)
class Ratio(Claim):
    """How the figures of one contender compare with those of another, turn by turn."""

    ours: Figures
    against: Figures
    goal: float | None
    # Whether the goal is a lower limit, as for requests a second, not an upper one, as for times.
    goal_is_least: bool = False
    unit = ""

    @property
    def of_turns(self):
        pairs = zip(self.ours.of_turns, self.against.of_turns)
        return [one / other for one, other in pairs if one is not None and other]

    @property
    def is_unstable(self):
        first, third = self.middle_half
        return third - first > UNSTABLE * self.median


@dataclass(frozen=True)
class Limit(Claim):
    """A figure of one contender that is a claim by itself, since it is not a time."""

    ours: Figures
    goal: float
    against = None
    goal_is_least = False
    is_unstable = False

    @property
    def unit(self):
        return self.ours.contender.unit

    @property
    def of_turns(self):
        return [figure for figure in self.ours.of_turns if figure is not None]


@dataclass(frozen=True)
class Result:
    """The results of a row."""

    row: str
    title: str
    ratios: list
    # Measured for orientation only, such as the cost of measuring.
    beside: list
    # What else has to be known, such as the versions of peers.
    notes: str = ""

    @property
    def figures(self):
        """Every contender once, ours first."""
        both = [
            figures for ratio in self.ratios for figures in (ratio.ours, ratio.against) if figures
        ]
        both += self.beside
        return list({id(figures): figures for figures in both}.values())

    @property
    def failures(self):
        return [
            f"{figures.contender.name}: {text}"
            for figures in self.figures
            for text in figures.failures
        ]


def quartiles(figures):
    """The first and the third; None for both if there are no figures."""
    if len(figures) < 2:
        return (figures[0], figures[0]) if figures else (None, None)
    first, _, third = statistics.quantiles(figures, n=4, method="inclusive")
    return (first, third)


def take_turns(contenders, turns, batch, uncounted=1):
    """Lets `contenders` take `turns` turns; returns their figures in the same order.

    `batch(contender)` returns one figure, None if there is none, and a list of what failed.
    """
    all_figures = [Figures(contender) for contender in contenders]
    for turn in range(1 - uncounted, turns + 1):
        for figures in all_figures:
            figure, failures = batch(figures.contender)
            figures.failures += failures
            if turn > 0:
                figures.of_turns.append(figure)
    return all_figures
