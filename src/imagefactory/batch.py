"""Several builds in one go: side by side, within one budget, each to its own end."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from imagefactory import cache, pipeline, render, run
from imagefactory.arch import ArchProfile
from imagefactory.catalog import Build
from imagefactory.errors import ImageFactoryError, of_system
from imagefactory.packages.mirrors import NONE, Mirrors
from imagefactory.plan import BuildPlan
from imagefactory.progress import Stages
from imagefactory.schedule import Schedule, side_by_side
from imagefactory.sources import Sources
from imagefactory.workbench import Workbench

T = TypeVar("T")


class Watcher(Protocol):
    """Whoever shows what builds are doing (`imagefactory.console.Board`)."""

    def announcer(self, subject: str) -> Callable[[str, str], None]:
        """Return what a build announces its stages with."""

    def warn(self, text: str) -> None:
        """Take note of what is not as it should be, and stops nobody."""

    def end(self, subject: str, result: str, seconds: Mapping[str, float], *, well: bool) -> None:
        """Take note that a build has ended."""


@dataclass(frozen=True)
class Order:
    """One image for one architecture."""

    image: str
    profile: ArchProfile

    @property
    def subject(self) -> str:
        """What it is called in messages."""
        return f"{self.image} {self.profile.name}"


@dataclass(frozen=True)
class Manner:
    """How things are built.

    Attributes:
        upload: Called with each finished build, and the stages that it announces itself with;
            what it returns goes into the outcome.
    """

    mirrors: Mirrors = NONE
    offline: bool = False
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    skip_test: bool = False
    upload: Callable[[Build, Stages], Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of an order: a build, or an error, or both when its upload failed."""

    order: Order
    build: Build | None = None
    error: ImageFactoryError | None = None
    uploaded: Any = None


def orders(bench: Workbench, images: Sequence[str], architectures: Sequence[str]) -> list[Order]:
    """Return each image with each architecture asked for, once.

    Raises:
        ConfigError: One of them does not exist; nothing has been started then.
    """
    return [Order(image, profile) for image, profile in bench.orders(images, architectures)]


def plan_all(
    bench: Workbench, orders: Sequence[Order], manner: Manner, schedule: Schedule
) -> list[BuildPlan]:
    """Resolve all orders.

    Raises:
        ImageFactoryError: The first that could not be.
    """

    def work(order: Order) -> BuildPlan:
        with schedule.building():
            return _plan(bench, order, manner)[0]

    with cache.in_use(bench.cache):
        plans = _side_by_side([functools.partial(work, order) for order in orders], schedule)
    for plan in plans:
        if isinstance(plan, ImageFactoryError):
            raise plan
    return [plan for plan in plans if isinstance(plan, BuildPlan)]


def build_all(
    bench: Workbench,
    orders: Sequence[Order],
    manner: Manner,
    schedule: Schedule,
    watcher: Watcher,
    complain: Callable[[ImageFactoryError], None] = lambda error: None,
) -> list[Outcome]:
    """Build all orders; one that fails does not stop the others.

    Args:
        bench: Where things are.
        orders: What to build.
        manner: How.
        schedule: The budget that they share.
        watcher: Is told what happens.
        complain: Is told of an error as soon as it is known.

    Returns:
        What became of each order.
    """
    told = threading.Lock()

    def work(order: Order) -> Outcome:
        stages = Stages(watcher.announcer(order.subject))
        outcome = _build(bench, order, manner, schedule, stages, watcher)
        if outcome.error and run.interrupted():
            raise KeyboardInterrupt  # the error is of a program that was told to end
        with told:  # a line and the error that belongs to it stay together
            watcher.end(
                order.subject,
                render.build_in_words(outcome.build) if outcome.build else "failed",
                stages.seconds,
                well=outcome.error is None,
            )
            if outcome.error:
                complain(outcome.error)
        return outcome

    with cache.in_use(bench.cache):
        outcomes = _side_by_side([functools.partial(work, order) for order in orders], schedule)
    return [outcome for outcome in outcomes if isinstance(outcome, Outcome)]


def _build(
    bench: Workbench,
    order: Order,
    manner: Manner,
    schedule: Schedule,
    stages: Stages,
    watcher: Watcher,
) -> Outcome:
    build = None
    try:
        with schedule.building(), stages.stage("plan", "resolving packages"):
            plan, sources = _plan(bench, order, manner)
        for warning in plan.warnings:
            watcher.warn(warning)
        factory = pipeline.Factory(
            profiles=bench.profiles,
            catalog=bench.catalog,
            cache=bench.cache,
            accelerator=manner.accelerator,
            skip_test=manner.skip_test,
            schedule=schedule,
            announce=stages.announce,
        )
        build = pipeline.build(plan, sources, factory, stages)
        uploaded = manner.upload(build, stages) if manner.upload else None
    except ImageFactoryError as error:
        return Outcome(order, build, error)
    except OSError as error:
        return Outcome(order, build, of_system(error))
    return Outcome(order, build, uploaded=uploaded)


def _plan(bench: Workbench, order: Order, manner: Manner) -> tuple[BuildPlan, Sources]:
    return bench.plan(order.image, order.profile, manner.mirrors, offline=manner.offline)


def _side_by_side(
    works: Sequence[Callable[[], T]], schedule: Schedule
) -> list[T | ImageFactoryError]:
    def stop() -> None:
        schedule.close()
        run.end_all()

    return side_by_side(works, stop)
